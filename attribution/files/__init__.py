"""Files from outside: read in bounded time and memory, written only where nothing of value is lost.

destinations  where output may go: nothing is replaced but an earlier one of the same kind
foreign       text, JSON and YAML that somebody else wrote, read in bounded time, refused in one line
tensors       safetensors files that somebody else wrote, refused in one line
"""
