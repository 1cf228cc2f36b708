"""Ed25519 keys, and what is signed by them: C2SP signed notes, log checkpoints, and JSON documents in RFC 8785 form.

Whatever cannot be verified raises `SignatureError`; every text has one spelling, so that no altered character passes.
Knows no database, no clock and no receipt.

    documents  signed JSON documents (RFC 8785)
    encoding   base64 in one spelling, so that no altered character passes
    keys       Ed25519 keys (RFC 8032), spelled as Go's `note` package spells them
    notes      signed notes and log checkpoints (C2SP)
"""
