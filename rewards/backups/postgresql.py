"""A ledger on PostgreSQL, dumped and loaded by the server's own tools, and the dump counted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import sqlalchemy
from sqlalchemy import Connection, make_url, text

from rewards.audit.report import AuditProgress
from rewards.errors import LedgerError
from rewards.store import schema
from rewards.store.database import connect_as_is
from rewards.store.url import url_without_password

_ROLES = re.compile(r"\bTO (protoken_\w+(?:, protoken_\w+)*)")
_COPY = re.compile(r'COPY (?:\w+\.)?"?(\w+)"? \(([^)]*)\)')
_TABLE = re.compile(r"^\d+; \d+ \d+ TABLE (?!DATA )\S+ (\S+) ", re.MULTILINE)  # in a dump's table of contents
_THOUSAND = 1000


def dump(connection: Connection, url: str, file: Path, rows: Mapping[str, int], progress: AuditProgress | None) -> None:
    """Let `pg_dump` write what the open transaction sees, and count its rows.

    Raises:
        LedgerError: the tool is missing (says by which command to do without us), or fails; or the dump has other rows.
    """
    command = ["pg_dump", "--format=custom", "--no-password"]
    snapshot = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
    command += [f"--snapshot={snapshot}", f"--file={file}", f"--dbname={_plain_url(url)}"]
    _run(command, f"ledger {url_without_password(url)}", by_hand(url), password=make_url(url).password)
    counts = _count_dump(file, url, rows, progress)
    if counts != rows:
        raise LedgerError(
            f"the dump of {url_without_password(url)} has other rows than the ledger: {counts}, not {dict(rows)}"
        )


def load(file: Path, url: str) -> None:
    """Let `pg_restore` fill an empty database, all of it or nothing; roles that its rights name are made first.

    Raises:
        LedgerError: the tool is missing (says by which command to do without us), or fails.
    """
    by_hand = (
        f"pg_restore --no-owner --exit-on-error --single-transaction --dbname='{url_without_password(url)}' {file}"
    )
    name = f"ledger {url_without_password(url)}"
    _make_roles(_run(["pg_restore", "--schema-only", "--file=-", str(file)], name, by_hand), url)
    options = ["--no-owner", "--exit-on-error", "--single-transaction", "--no-password"]
    command = ["pg_restore", *options, f"--dbname={_plain_url(url)}", str(file)]
    _run(command, name, by_hand, password=make_url(url).password)


def require_ledger(file: Path) -> None:
    """Refuse a dump of another database than a ledger, or of one that this program cannot open.

    Raises:
        LedgerError: says which; or the tool is missing, or cannot read the file.
    """
    if not is_ledger(file):
        raise LedgerError(f"{file} is a dump of a database that is no ledger; nothing was changed")
    revisions = [row["version_num"] for _table, row in rows_of(file, (schema.REVISION_TABLE,))]
    if not revisions:
        raise LedgerError(f"{file} does not say of which schema its ledger is, so rows of it are missing")
    schema.require_known(revisions[0], str(file))


def is_ledger(file: Path) -> bool:
    """Whether a dump has a ledger's tables, by its table of contents.

    Raises:
        LedgerError: the tool is missing, or cannot read the file.
    """
    command = ["pg_restore", "--list", str(file)]
    return schema.is_ledger(_TABLE.findall(_run(command, str(file), " ".join(command))))


def rows_of(file: Path, tables: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row of some tables in a dump with its table, column -> value as PostgreSQL writes it.

    Raises:
        LedgerError: the tool is missing, or the file cannot be read to its end.
    """
    for table, columns, line in _lines(file, tables, str(file), f"pg_restore --data-only {file}"):
        names = [name.strip('"') for name in columns.split(", ")]
        yield table, dict(zip(names, line.split("\t"), strict=False))


def by_hand(url: str) -> str:
    """The command that backs a ledger up without us."""
    return f"pg_dump --format=custom --file=FILE --dbname='{url_without_password(url)}'"


def _make_roles(script: str, url: str) -> None:
    """Roles are the server's, and so in no dump; those that are there stay as they are."""
    named = sorted({role for group in _ROLES.findall(script) for role in group.split(", ")})
    with connect_as_is(url, writing=True) as connection:
        known = set(connection.execute(text("SELECT rolname FROM pg_roles")).scalars())
        for role in named:
            if role not in known:
                connection.execute(text(f"CREATE ROLE {role} NOLOGIN"))
            if role == "protoken_member":
                connection.execute(text("GRANT protoken_member TO CURRENT_USER"))  # the service reads as a member


def _count_dump(file: Path, url: str, rows: Mapping[str, int], progress: AuditProgress | None) -> dict[str, int]:
    """Rows of each table in a dump."""
    counts, read = dict.fromkeys(rows, 0), 0
    if progress is not None:
        progress.start("thousands of rows counted again", -(-sum(rows.values()) // _THOUSAND))
    for table, _columns, _line in _lines(file, (), f"the dump of {url_without_password(url)}", by_hand(url)):
        if table in counts:
            counts[table] += 1
            read += 1
            if progress is not None and read % _THOUSAND == 0:
                progress.advance()
    return counts


def _lines(file: Path, tables: Sequence[str], name: str, by_hand: str) -> Iterator[tuple[str, str, str]]:
    """Table, columns and text of each row in a dump, of some tables or of all; line by line: memory stays flat."""
    options, table, columns = [f"--table={each}" for each in tables], "", ""
    with _start_tool(["pg_restore", "--data-only", "--file=-", *options, str(file)], by_hand) as tool:
        assert tool.stdout is not None, "its output is a pipe"
        for line in tool.stdout:
            begun = None if table else _COPY.match(line)
            if begun is not None:
                table, columns = begun.groups()
            elif line == "\\.\n":
                table = ""
            elif table:
                yield table, columns, line.rstrip("\n")
    if tool.returncode:
        raise LedgerError(f"{name} cannot be read back: pg_restore ended with {tool.returncode}")


def _run(command: Sequence[str], name: str, by_hand: str, *, password: str | None = None) -> str:
    """What a tool printed; its own error where it fails."""
    with _start_tool(command, by_hand, password=password, errors=subprocess.PIPE) as tool:
        printed, errors = tool.communicate()
    if tool.returncode:
        said = " ".join(" ".join(errors.split()).split(f"{command[0]}: ")).strip()
        raise LedgerError(f"{name}: {command[0]} failed: {said or tool.returncode}; by hand: {by_hand}")
    return printed


def _start_tool(
    command: Sequence[str], by_hand: str, *, password: str | None = None, errors: int = subprocess.DEVNULL
) -> subprocess.Popen[str]:
    path = shutil.which(command[0])
    if path is None:
        raise LedgerError(
            f"{command[0]}, PostgreSQL's own tool, is not installed here (package postgresql-client, of the server's "
            f"version or later): install it, or run elsewhere: {by_hand}"
        )
    environment = os.environ | {"PGCLIENTENCODING": "UTF8"} | ({} if password is None else {"PGPASSWORD": password})
    return subprocess.Popen(  # noqa: S603 - no shell, and the password is in no argument
        [path, *command[1:]], stdout=subprocess.PIPE, stderr=errors, env=environment, encoding="utf-8"
    )


def _plain_url(url: str) -> str:
    """The URL as PostgreSQL's tools take it, without the password, which any user of the machine would see."""
    parsed = make_url(url)
    plain = sqlalchemy.URL.create(
        "postgresql", parsed.username, None, parsed.host, parsed.port, parsed.database, parsed.query
    )
    return plain.render_as_string()
