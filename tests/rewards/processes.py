"""Processes for races and crashes: they begin with every module loaded and with nothing else of the test's.

They are forked from a server that has opened no ledger and started no thread, so no connection or lock is inherited, as
with the workers that Ray starts; a test of eight processes does not load the same modules eight times.
"""

import multiprocessing

__all__ = ["PROCESSES"]

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", "psycopg", "rewards.audit", "rewards.periods", "rewards.log.sealer"])
