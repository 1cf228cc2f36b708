"""What crosses the wire as pydantic models; the OpenAPI document is made of them.

Of OpenAI's API, with attribution, `openai_requests` come in and `openai_responses` go out. Of the operator API there is
a module for each of its parts. Knows the shapes on the wire, nothing of who may ask or of how an answer is made.

    bases                 what every answer and every request of the operator API is built on
    calibrations          calibrations: how far what is paid is from Shapley values
    credit                consortia, clients, shares, credit and entries
    errors                the body of every refusal, as the OpenAPI document tells it
    explanations          a client's payout, explained line by line
    explained_statements  statements since they explain themselves
    fields                kinds of fields that several requests and answers share
    holds                 holds
    keys                  bearer keys
    log                   the Merkle log: checkpoints, signing keys and proofs
    openai_requests       OpenAI's chat and text completions, with every way to sample, and the field `attribution`
    openai_responses      OpenAI's answers: what carries attribution, usage and models
    parameters            parameters that are no fields of our requests: which are accepted all the same
    periods               periods and their settlements
    receipts              receipts and events, whole as they were written, and what a reversal needs
    rounds                rounds of training: which was published when, and who contributed what to it
    statements            statements
    strata                how responses that were not measured were settled, and what that leaves open
"""
