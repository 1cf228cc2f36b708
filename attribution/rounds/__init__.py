"""Rounds as training ran them: who sent which update with what weight, written by a recorder and read by an importer.

The package stands beside a federation's own software: it needs NumPy and safetensors, and no torch.

documents          the schema of `rounds.json` and of each round's `round.json`
flower             the recorder for Flower, one line in a user's server app
flower_forms       how replies have to be alike, so that a strategy can average them
flower_members     which member a node of Flower is, by its public key
flower_messages    what a recorder takes of Flower, and how a reply becomes an update
flower_strategies  strategies of Flower, and which of them cannot be recorded, and why
hashing            the one hash of many tensors, whichever framework holds them and however a file lays them out
reading            a folder of recorded rounds, read in bounded memory and refused where anything does not follow
stored_tensors     tensors in a safetensors file: written without a copy, hashed without loading them
tensor_bytes       a tensor as its bytes: NumPy's or PyTorch's, bfloat16 too
writing            a folder of recorded rounds, to which a round is added whole or not at all
"""
