"""A replica: one model, one worker, and the way from generated tokens to booked credit.

booking_queue  books what is spooled: at once, or again and again until the database is back
deployment     the Ray Serve deployment that holds the model: one model, one worker
endings        what a response ends with that does not finish, and how an end is counted
fair_queue     who is served next, so that one application's flood starves no other
logprobs       log-probabilities as an application is told them, each with its text
messages       what crosses between ingress and replica: a job in, events out
prompts        prompts to token ids, long ones apart from short ones
receipts       from an attributed response to a receipt, and to what the application is told
recorder       from generated tokens to booked credit: attribution, receipt, spool, booking
recovery       what a dead process left: receipts are booked, streams that it cut are credited
worker         the one thread that owns a model: jobs join its batch, and are booked before they end
"""
