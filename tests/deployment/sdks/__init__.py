"""Libraries that applications are written with, unchanged, against the service over the scripted engine."""
