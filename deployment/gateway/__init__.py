"""The OpenAI-compatible endpoint: requests in, jobs to the replicas, answers out. Knows no model and no money.

answering      from a job to its HTTP answer, whole or streamed
claiming       claims of idempotency keys made and released from an event loop, in threads of their own and with
               bounded patience
health         what `GET /health` tells: each part of the service, and whether it can be relied on
idempotency    `Idempotency-Key`: a request that is sent again gets the response of the first time, or is told why
               it cannot
recent         an answer that many want and that is asked for once
replicas       the replicas of the model behind a Serve handle, made to look like the gateway's `Engine`
routes         the OpenAI-compatible routes, and `GET /health`
service        what the routes of the ingress and of the console work with, and how a request becomes a job for a
               replica
shared_health  `GET /health` at Serve's proxy
silence        how long a stream may be silent, and what is done meanwhile
wire           OpenAI's envelopes, whole and streamed, for chat and for text completions, with attribution where
               SDKs keep it
"""
