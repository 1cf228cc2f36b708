"""The OpenAI-compatible endpoint: requests in, jobs to the replicas, answers out. Knows no model and no money.

answer_cache      an answer that many want, asked for once
async_claims      claims of idempotency keys made and released in threads of their own
choices           the responses that one request asks for, as one stream of events
envelopes         OpenAI's envelopes with attribution, whole and streamed, for chat and completions
health_report     what `GET /health` tells, part by part
http_responses    events as an HTTP answer, whole or as server-sent events
idempotency       `Idempotency-Key`: a repeated request gets the first response, or is told why not
keep_alive        a stream that is silent: comments meanwhile (how often: `keep_alive_s`), and when it is given up
logprobs          log-probabilities of tokens in OpenAI's two shapes
model_router      several models, each with replicas of its own, as the one engine of the gateway
proxy_health      `GET /health` at Serve's proxy: the service is asked at most once a second
replicas          the replicas of one model behind a Serve handle
request_handling  from a job to its HTTP answer, whole or streamed: limits, idempotency, the end
routes            the OpenAI-compatible routes, and `GET /health`
service           what routes and pages work with, and how a request becomes a job
"""
