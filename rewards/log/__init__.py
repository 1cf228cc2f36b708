"""The Merkle log over the books: what was booked stays as it was, and anybody can check it.

checkpoints         which lines a signed checkpoint of the log has, and those in the books
leaves              the bytes of a leaf, and what one client is shown of a receipt
merkle              the Merkle tree of RFC 9162: growth, root, proofs
proofs              what a client was credited, and that history stayed as it was, checked offline
publication_proofs  that a bundle was published, checked offline against the bundle in hand
sealer              new receipts and events into the log, under a signed checkpoint
"""
