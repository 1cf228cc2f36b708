"""A consortium on disk: the global model and each client's update, every file hashed.

bundle        a bundle on disk: opened with every hash checked, verified by recomputation
bundle_diff   what differs between two bundles, client by client
footprint     how much a bundle holds, told from the heads of its files
manifest      the schema of `consortium.json`, the front page of a bundle
merge_check   one parameter's merge, recomputed element by element
replacement   a finished bundle put in the place of an older one, and of nothing else
round_claims  what a manifest says of recorded rounds, held against what is in its bundle
similarity    how large updates are and how alike, low-rank ones never multiplied out
suspicions    what looks wrong in updates, for people to look into: scaled, copied, empty, heavily weighted
updates       one client's update: low-rank factors or whole differences, on disk and in memory
writing       a bundle written whole or not at all: merged as base + Σ_i D_i, every file hashed
"""
