"""Federated averaging over question–answer files, from a recipe to a bundle.

aggregation  a round's updates merged, by declared examples, with defences against those who cheat
batches      which examples a client trains on, in which order
federate     rounds of federated averaging (FedAvg), written as a bundle
local        one client's local training: AdamW on the blocks that train
recipe       how a consortium trains: the recipe file, and the question–answer files it names
trainers     what a client trains: LoRA factors on the last blocks, or all their weights
"""
