"""Files from outside: read in bounded time and memory, written only where nothing of value is lost.

destinations       where output may go: nothing is replaced but an earlier one of the same kind
durable            that what was written is on the disk
safetensors_files  safetensors files that somebody else wrote, opened without torch, refused in one line
strict             what every document of ours has in common
torch_tensors      the tensors of such files, as torch's
untrusted          text, JSON and YAML that somebody else wrote, read in bounded time, refused in one line
"""
