"""Matches regular expressions in a process of its own, which whoever started it may end: some would run for ever.

Reads `[[[method, pattern], …], [name, …]]` from its input and writes, for each pattern, the names that it matches, or
`{"pattern": …, "error": …}` of the first that is none. Run by its path, so that it imports nothing but this.
"""

import json
import re
import resource
import sys
from contextlib import suppress

_MOST_BYTES = 1 << 29


def main() -> None:
    """Answer one request."""
    with suppress(ValueError, OSError):  # a system that cannot limit memory still limits the time
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    patterns, names = json.load(sys.stdin)
    matches = []
    for method, pattern in patterns:
        try:
            match = getattr(re.compile(pattern), method)
            matches.append([name for name in names if match(name)])
        except (re.error, OverflowError, RecursionError, MemoryError) as error:
            json.dump({"pattern": pattern, "error": str(error) or type(error).__name__}, sys.stdout)
            return
    json.dump(matches, sys.stdout)


if __name__ == "__main__":
    main()
