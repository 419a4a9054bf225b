"""The one kind of error that a user's input can cause, and how commands report it."""

from __future__ import annotations

import sys
from collections.abc import Callable


class InputError(Exception):
    """Bad input, told in one sentence; commands print it and exit with status 2."""


def run_command(main: Callable[[], None]) -> None:
    """Runs a command: bad input ends in its one sentence on stderr and exit status 2."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
