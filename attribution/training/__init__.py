"""Federated averaging over question–answer files, from a recipe to a bundle.

aggregation  what the aggregator makes of a round's updates
federate     rounds of federated averaging over question–answer files (FedAvg: McMahan et al
local        one client's local training
recipe       how a consortium trains: the recipe file, and the question–answer files it names
trainers     what a client trains in its turn
"""
