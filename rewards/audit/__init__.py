"""The independent audit: rebuilds hashes, log, balances and settlements from the rows alone, and names what differs.

It shares no code with what writes the books: not with ledger, events, sealing, leaves, log, periods or writer. What is
shared are the tables, the connections, signatures (`rewards.signing`) and the settlement rule, which is pure.
"""

from rewards.audit.replay import audit
from rewards.audit.report import Difference, Progress, Report

__all__ = ["Difference", "Progress", "Report", "audit"]
