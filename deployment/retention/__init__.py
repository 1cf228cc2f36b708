"""What the service keeps on its disk beside the ledger; how long, `deployment.settings` says.

files    a folder whose files are kept for a while: whole, for their owner alone
replays  finished responses, kept for retries under the same `Idempotency-Key`
texts    finished responses, kept for the console where the setting `texts` names a folder
"""
