"""A replica: one model, one worker, and the way from generated tokens to booked credit.

booker      books what is spooled
crediting   from generated tokens to booked credit
deployment  the Ray Serve deployment that holds the model
endings     what a response ends with that does not finish, and how an end is counted
messages    what crosses between the ingress and a replica
prompts     prompts to token ids before a job may wait for the model, and which are too long
receipts    from an attributed response to a receipt, and to what the application is told of it
recovery    what a dead process left in its spool, taken over
worker      the one thread that owns a model
"""
