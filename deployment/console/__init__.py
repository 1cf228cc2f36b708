"""The console: pages for operators and members, rendered here, over the same rules as the operator API."""
