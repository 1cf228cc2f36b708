"""Whether the service stands on what it stood on when it started, and what it says of that.

faults         looks again and again whether what the service stands on is still there
places         the folder of the spool, and whether a folder can be used
ports          whether a service can listen where it is set to
signing_key    the signing key on disk: made, registered in the ledger, found again, replaced
watched_parts  folders, secrets and bundle, as they were at the start
"""
