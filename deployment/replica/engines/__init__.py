"""Engines: who makes the tokens of a replica. Ours is in `attribution.decoding`; here is one that serves over HTTP.

An engine in its own process, such as vLLM, is sent the ids of a prompt's tokens and returns those of its answer, over
OpenAI's `/v1/completions` with `return_token_ids`. So the text, and where it ends, are ours; scores are taken from the
ids alone, by the bundle's own weights. What it tells of probabilities is shown to applications, and never paid on.

    assembly              what a worker and its replica take of either kind
    canary                whether an engine serves the weights of the bundle: on start, hourly, and when it is back
    completions_protocol  what is sent to an engine, and what a chunk of its answer says
    connection            an engine's HTTP, in an event loop of a thread of its own
    decoder               what a worker asks of whoever makes tokens
    engine_response       one response of an engine: held against what was asked, token by token
    engine_status         whether an engine answers, serves the model that is set, and passed its canary
    errors                what an engine does wrong, and what an application is told of it
    event_reader          server-sent events, as their bytes come
    model_thread          the one thread of a process in which torch works
    remote_batch          the rows of a worker, each the stream of an engine
    scoring_thread        scoring in the model's thread, for a worker that decodes elsewhere
"""
