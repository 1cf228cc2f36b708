"""The service put together: one HTTP surface, as a Serve deployment over the replicas, started.

cluster   the service on many machines, as Serve's own configuration file names it
docs      the interactive description of the API at `/docs`, and the way from `/` to the console
http_app  the whole HTTP surface in one FastAPI app: gateway, operator API and console
ingress   the Ray Serve deployment that answers HTTP, over the replicas
launch    the composition root: builds the Serve graph from the settings, starts it, waits for its end
openapi   what the OpenAPI document says of the service as a whole
proxy     what stands in front of the service at Serve's own proxy
sealing   the sealer of the log as a Serve deployment; how often it seals is the setting `seal_interval_s`
"""
