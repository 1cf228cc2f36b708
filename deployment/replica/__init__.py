"""A replica: one model at a time, its worker, and the way from generated tokens to booked credit.

booking/         from generated tokens to booked credit, and what is left of that where a process dies
bundles/         which bundle of the consortium is served, and which others end what they began
engines/         who makes the tokens: the model in a thread of its own, or a server in a process of its own
scoring/         responses that wait for their score: in the worker's thread, or in processes of their own
active_request   a job on its way: what was generated, spooled and shown
capacity         how much one replica takes, and why it takes no more
deployment       the Ray Serve deployment that holds the model: one consortium, served from one bundle after the other
event_stream     events from the worker's thread to the event loop, text that waits as one piece
failures         what an application is told of a response that does not finish, and how an end is counted
fair_queue       who is served next, so that one application's flood starves no other
logprobs         log-probabilities as an application is told them, each with its text
messages         what crosses between ingress and replica: a job in, events out
observer         who is told how requests fare, and several workers' news added up for it
prompt_encoding  prompts to token ids, long ones apart from short ones; how much of them a step runs is `decode`'s
worker           the one thread that owns a model: jobs join its batch, and are booked before they end
"""
