"""The OpenAI-compatible endpoint: requests in, jobs to the replicas, answers out. Knows no model and no money.

answers        from a job to its HTTP answer, whole or streamed: limits, idempotency, the end
choices        the responses that one request asks for, as one stream of events
claims         claims of idempotency keys made and released in threads of their own
delivery       events as an HTTP answer, whole or as server-sent events
envelopes      OpenAI's envelopes with attribution, whole and streamed, for chat and completions
health_answer  what `GET /health` tells, part by part
idempotency    `Idempotency-Key`: a repeated request gets the first response, or is told why not
logprobs       log-probabilities of tokens in OpenAI's two shapes
models         several models, each with replicas of its own, as the one engine of the gateway
recent_answer  an answer that many want, asked for once
replicas       the replicas of one model behind a Serve handle
routes         the OpenAI-compatible routes, and `GET /health`
service        what routes and pages work with, and how a request becomes a job
shared_health  `GET /health` at Serve's proxy: the service is asked at most once a second
silence        a stream that is silent: comments meanwhile (how often: `keep_alive_s`), and when its replica is given up
"""
