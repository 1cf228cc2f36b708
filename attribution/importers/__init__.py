"""Updates that others trained, checked and taken into a bundle.

adapter_config   what a PEFT `adapter_config.json` means
adapter_folders  what a folder holds that should hold a PEFT adapter
base_names       whether the base model that an adapter names is the one that it is merged into, as far as names can
                 tell
pattern_worker   matches regular expressions in a process of its own, which whoever started it may end
patterns         which layers a stranger's regular expressions mean, as Python's `re` says and within seconds,
                 whatever they are
peft_folders     a bundle from PEFT adapter folders that somebody else trained, one LoRA adapter per client
"""
