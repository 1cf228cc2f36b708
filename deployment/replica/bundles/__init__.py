"""Which bundle of a consortium is served: published, taken back, brought into memory, found again by its hash.

loading            a bundle by the hash of its model, from wherever it lies as it was published, and tried again
publication_index  what was published, for whoever loads bundles: which one is to serve, and where each of them lies
publish            a bundle put in service, or taken back, in the ledger that replicas read it from
rollout            what is published takes the place of what is served, and what the dead left is scored by its round
servable           the bundles that a service is set to serve: opened, and fit to be served side by side
served_round       one bundle in memory: its model, its worker, and whether its files are as they were
"""
