"""A consortium on disk: the global model and each client's update, every file hashed.

bundle       a consortium on disk
manifest     the schema of `consortium.json`, the front page of a bundle
merge_check  one parameter's merge, recomputed
replacing    putting a finished bundle where it belongs
similarity   how large updates are and how alike
suspicions   what looks wrong in a bundle's updates, for people to look into
updates      what one client's training changed
writing      writing a bundle: the global model is merged as base + Σ_i D_i, everything is hashed, and the folder
             appears whole
"""
