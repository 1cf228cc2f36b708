"""`make bench-vllm`: vLLM alone and with our service before it, over HTTP, on the same weights.

environment  vLLM in an environment of its own, made once: 3.5 GB, minutes
server       one that serves the weights of a bundle on a port of loopback
"""
