"""What crosses the wire as pydantic models; the OpenAPI document is made of them.

Of OpenAI's API, with attribution, `requests` come in and `responses` go out. Of the operator API there is a module for
each of its parts. Knows the shapes on the wire, nothing of who may ask or of how an answer is made.

    credit      what the operator API tells of credit: consortia, clients, shares, credit and entries
    errors      the body of every refusal, as the OpenAPI document tells it
    fields      kinds of fields that several requests and answers share
    holds       what the operator API takes and tells of holds
    keys        what the operator API takes and tells of bearer keys
    log         what the operator API tells of the Merkle log: checkpoints, keys and proofs
    periods     what the operator API takes and tells of periods and their settlements
    receipts    what the operator API tells of receipts and events, whole as they were written, and what a reversal
                needs
    requests    what an application may send
    responses   what an application gets back
    statements  what the operator API tells of statements
"""
