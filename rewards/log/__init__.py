"""The Merkle log over the books: what was booked stays as it was, and anybody can check it.

leaves   the bytes that stand in the Merkle log for a receipt and for an event, and what one client is shown of a
         receipt
merkle   the Merkle tree of RFC 9162, section 2.1
proofs   proofs from the Merkle log, and their check offline
sealing  sealing: new receipts and events become leaves of the Merkle log, and a signed checkpoint closes over them
"""
