"""Updates that others trained, checked and taken into a bundle.

adapter_config   what an `adapter_config.json` means: which layers, of which rank, scaled by how much
adapter_folders  what a folder holds that should hold a PEFT adapter; if it is something else, it says what
base_names       whether an adapter names the base model that it is merged into
checkpoints      a bundle from whole checkpoints, one per client
client_folders   what each client hands in, whatever it holds: a folder and its part of the average
defences         members whose folders are averaged, under the defences of `attribution.training.aggregation`
pattern_worker   regular expressions matched in a process of its own, which may be ended
patterns         which layers a stranger's regular expressions mean, within seconds, whatever they are
peft_folders     a bundle from PEFT adapter folders, one LoRA adapter per client
recorded_rounds  a bundle from rounds as they were recorded: each client's part of all of them, and the server's
recorded_states  what the tensors of a recorded model are: factors of layers, or whole parameters
round_sums       what rounds add up to, in the space of merged weights: each client's part, and the server's
"""
