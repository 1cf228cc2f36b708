"""What Prometheus is told: a catalogue of every series, money from the ledger, and how each replica fares."""
