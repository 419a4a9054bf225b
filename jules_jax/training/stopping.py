"""Stopping: a signal asks for the end after the current update, a second one ends at once."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from jules_jax.errors import Stopped

STATUS = {signal.SIGTERM: 0, signal.SIGINT: 130}
"""The signals that stop a run, and the exit status once it has: a scheduler's is no failure."""
TERMINATED = 128 + signal.SIGTERM
"""The exit status of what SIGTERM ends for good, as shells have it."""

SHOW_CURSOR = b"\x1b[?25h\n"
"""A panel hides it, and has no time to show it again."""


class Stopping:
    """While it is entered, signals are noted in `asked`; a second one ends the process.

    While XLA runs, Python handles no signal, and a second Ctrl-C would wait for the end of the
    update like the first. So a thread of its own reads what the interpreter writes at once to the
    wake-up socket. Outside the main thread, where signals cannot be handled, it does nothing.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.asked: signal.Signals | None = None
        self._say = say
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is not threading.main_thread():
            return self
        reader, writer = self._sockets = socket.socketpair()
        writer.setblocking(False)
        self._before = {number: signal.signal(number, _noted) for number in STATUS}
        self._wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._sockets is None:
            return
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._sockets[1].close()  # which ends the thread

    def _watch(self, reader: socket.socket) -> None:
        with reader:
            while received := reader.recv(1):
                number = signal.Signals(received[0])
                if number not in STATUS:
                    continue
                if self.asked is not None:
                    if sys.stdout.isatty():
                        os.write(sys.stdout.fileno(), SHOW_CURSOR)
                    os._exit(128 + number)
                self.asked = number
                self._say(
                    f"\n{number.name}: stopping after this update, with a checkpoint; "
                    "once more stops at once"
                )


@contextmanager
def unfinished(left: str) -> Iterator[None]:
    """For who promises more with status 0 than that a run was stopped well: names what is `left`.

    SIGTERM then ends with the status that shells have for it.
    """
    try:
        yield
    except Stopped as stop:
        raise Stopped(f"{stop}; {left}", stop.status or TERMINATED) from None


def _noted(number: int, frame: FrameType | None) -> None:
    """In place of the default, which would raise wherever Python happens to be."""
