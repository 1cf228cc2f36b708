"""Flower itself, on loopback and in an environment of its own: a SuperLink with SuperNodes that prove who they are.

app/          the app that they run: LoRA-shaped updates of a small model, in NumPy
environment   Flower with the wheel of this project, installed together
federation    the processes, started and ended
"""
