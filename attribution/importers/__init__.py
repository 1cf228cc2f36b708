"""What others trained, turned into bundles. Each module knows one foreign format and nothing of the others."""
