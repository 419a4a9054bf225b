"""The errors that end a command in one sentence, and how commands report them."""

from __future__ import annotations

import os
import sys
import traceback
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
    except (InputError, Diverged, Stopped, KeyboardInterrupt) as error:
        raise SystemExit(status_of(error)) from None


def status_of(error: BaseException) -> int:
    """The exit status of what ends a command, once it is told on stderr."""
    match error:
        case InputError():
            said, status = f"error: {error}", 2
        case Diverged():
            said, status = f"diverged: {error}", 3
        case Stopped():
            said, status = f"stopped: {error}", error.status
        case KeyboardInterrupt():
            said, status = "interrupted", 130
        case SystemExit():
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        case _:
            said, status = "".join(traceback.format_exception(error)), 1
    print(said, file=sys.stderr)
    return status
