"""The errors that end a command in one sentence, and how commands report them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class InputError(Exception):
    """Bad input, told in one sentence; commands print it and exit with status 2."""


class Diverged(Exception):
    """Training that is no longer finite, told in one sentence; exit status 3."""


class Stopped(Exception):
    """A run that was told to stop, and can go on from its checkpoint, told in one sentence."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


def run_command(main: Callable[[], None]) -> None:
    """Runs a command: bad input ends in its one sentence on stderr and exit status 2, a
    run that diverged in its sentence and status 3.

    A reader of stdout that stops early, such as `head`, ends it without a word and with status 141,
    as SIGPIPE would.
    """
    try:
        try:
            main()
        finally:
            sys.stdout.flush()  # here, where it can still be told that nobody reads
    except BrokenPipeError:
        # What is left in the buffer is flushed once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
        raise SystemExit(141) from None
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except Diverged as divergence:
        print(f"diverged: {divergence}", file=sys.stderr)
        raise SystemExit(3) from None
    except Stopped as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        raise SystemExit(stop.status) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
