"""The real model behind the real service, in processes of its own on loopback."""
