"""What the service keeps on its disk beside the ledger, and for how long.

files    a folder whose files are kept for a while
replays  texts of finished responses, kept for a while on this disk so that a request that is repeated gets the same
         answer
texts    texts of finished responses, kept for the console where the service was told to
"""
