"""What waits for the ledger in a spool's folder, by application: read beside whoever owns the files, and left there.

Knows records as `deployment.spool.records` writes them; one that is none counts for nothing.
"""

from collections.abc import Mapping
from pathlib import Path

from deployment.errors import SpoolError
from deployment.spool.files import reason
from deployment.spool.lines import Record, read


def spooled_tokens(folder: Path) -> dict[str, dict[str, int]]:
    """Application -> response id -> tokens, of every record in a spool's files, whether their processes live or not.

    A file that is taken over meanwhile has its records in another one by then, so all are read again.

    Raises:
        SpoolError: a file cannot be read; it is named with the reason.
    """
    while True:
        sums: dict[str, dict[str, int]] = {}
        try:
            for path in sorted(folder.glob("spool-*.jsonl")):
                for record in read(path.read_bytes()).live.records():
                    _add(sums, record)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SpoolError(f"{error.filename} cannot be read: {reason(error)}") from error
        return sums


def _add(sums: dict[str, dict[str, int]], record: Record) -> None:
    document = record.get(record["kind"])
    if not isinstance(document, Mapping):
        return
    application = document.get("application")
    tokens = document.get("tokens", len(document.get("token_ids", ())))
    if isinstance(application, str) and isinstance(tokens, int) and tokens > 0:
        of_application = sums.setdefault(application, {})
        of_application[record["id"]] = max(tokens, of_application.get(record["id"], 0))
