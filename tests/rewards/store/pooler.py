"""A real PgBouncer in transaction mode in front of the tests' PostgreSQL."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from tests.waiting import until
from tests.wanted import program

_CONFIG = """\
[databases]
* = host={sockets} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
logfile = {folder}/log
"""


@contextmanager
def pooled(url: str) -> Iterator[str]:
    """The URL of the same database behind a pooler that gives each transaction whichever of two connections is free."""
    pgbouncer = program("pgbouncer", "pgbouncer")
    parsed = make_url(url)
    with tempfile.TemporaryDirectory(prefix="protoken-pooler-") as name:
        folder = Path(name)
        folder.chmod(0o777)  # as root it runs as the server's own user
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = folder / "pgbouncer.ini"
        config.write_text(_CONFIG.format(sockets=parsed.query["host"], port=port, folder=folder))
        user = ["-u", "pgserver"] if os.geteuid() == 0 else []
        with subprocess.Popen([pgbouncer, "-q", *user, str(config)]) as process:
            try:
                _wait(port, process)
                yield f"postgresql://postgres@127.0.0.1:{port}/{parsed.database}"
            finally:
                process.terminate()


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    def accepts() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, "the pooler did not start"
            return False
        return True

    until(accepts, what="a connection to the pooler")
