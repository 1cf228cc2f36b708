"""Updates that others trained, checked and taken into a bundle.

adapter_config   what an `adapter_config.json` means: which layers, of which rank, scaled by how much
adapter_folders  what a folder holds that should hold a PEFT adapter; if it is something else, it says what
base_names       whether an adapter names the base model that it is merged into
pattern_worker   regular expressions matched in a process of its own, which may be ended
patterns         which layers a stranger's regular expressions mean, within seconds, whatever they are
peft_folders     a bundle from PEFT adapter folders, one LoRA adapter per client
"""
