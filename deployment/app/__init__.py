"""The service put together: one HTTP surface, as a Serve deployment over the replicas, started.

ingress  the ingress as a Ray Serve deployment: the HTTP surface over the replicas, with what it stands on
openapi  what the OpenAPI document says of the service as a whole
proxy    what stands in front of the service at Serve's own proxy
serving  the composition root: builds the Serve graph by hand from the settings, starts it, and waits to be told to stop
surface  the service's whole HTTP surface in one FastAPI app: the gateway's routes, the operator API and the console
"""
