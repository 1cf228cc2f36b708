"""A Flower app as projects have them, that tunes a language model by LoRA on each member's questions and answers."""
