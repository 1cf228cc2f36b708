"""A disk without locks, as some network disks are: the kernel answers ENOLCK to every lock of a process.

Run as a program it brings that on itself, and then prepares and opens the ledger whose URL it is given. It prints what
it is told, and how many seconds that took.
"""

import ctypes
import platform
import struct
import sys
import time

from rewards.errors import LedgerError
from rewards.ledger.ledger import Ledger

_FCNTL = {"x86_64": 72, "aarch64": 25}
_SET_LOCK = 6
_ENOLCK = 37
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _SECOND_ARGUMENT = 0, 24  # offsets in what the filter is shown of a call
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


def without_locks() -> None:
    """From now on, no lock of this process is granted."""
    steps = [
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_IF_EQUAL, 0, 3, _FCNTL[platform.machine()]),
        (_LOAD, 0, 0, _SECOND_ARGUMENT),
        (_JUMP_IF_EQUAL, 0, 1, _SET_LOCK),
        (_RETURN, 0, 0, _ERROR | _ENOLCK),
        (_RETURN, 0, 0, _ALLOW),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    told = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    assert libc.prctl(_SECCOMP, _FILTER, told, 0, 0) == 0, ctypes.get_errno()


if __name__ == "__main__":
    without_locks()
    began = time.monotonic()
    for use in (Ledger.prepare, Ledger):
        try:
            use(sys.argv[1])
        except LedgerError as error:
            print(error)
    print(time.monotonic() - began)
