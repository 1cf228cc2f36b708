"""The routes of the operator API, one noun of its paths in each module.

clients     `/clients`: the member organisations and the credit that each ever got
consortium  `/consortium`: the consortia of the ledger, their models, and the ledger's own figures
credit      `/credit`: micro-credits by account, of all time or of a closed period
entries     `/entries`: the lines that credit is made of
events      `/events`: what happened besides receipts, as the events have it
exports     `/exports`: entries for spreadsheets, receipts as events for metering
holds       `/holds`: a client's payouts, or the credit of one response, kept from being paid
keys        `/keys`: bearer keys made, listed, rotated and revoked
log         `/log`: signed checkpoints of the Merkle log, and proofs that anybody can check offline
periods     `/periods`: previewed, closed, disputed, made final, paid
receipts    `/receipts`: the credit of responses as it was booked, and its reversal
rounds      `/rounds`: which round of training was published when, and who contributed what to it
shares      `/shares`: who earned which part of a period
statements  `/statements`: what each client is told of a final period: JSON, CSV, a page to print
"""
