"""A TensorBoard file that is written at once.

tensorboardX writes in a thread of its own, which a full disk ends without a word; whoever logs next
then waits for ever at its full queue. Here whoever logs gets the error.
"""

from __future__ import annotations

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

FLUSH_SECONDS = 30.0
"""What is written is on disk, for TensorBoard to read, after so long at most."""


class EventFile:
    """Summaries by step in a new file of a run's directory; raises `OSError` as files do.

    purge_step: TensorBoard hides what older files of the directory have from this step on. suffix:
    of the file's name.
    """

    def __init__(self, directory: Path, *, purge_step: int | None = None, suffix: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(directory / "events"), suffix)
        self._flushed = time.monotonic()
        if purge_step is not None:
            self._write(Event(step=purge_step, file_version="brain.Event:2"))
            start = SessionLog(status=SessionLog.START)
            self._write(Event(step=purge_step, session_log=start))

    def add(self, summary: Summary, step: int = 0) -> None:
        """Writes a summary, as `tensorboardX.summary` makes them."""
        self._write(Event(step=step, summary=summary))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Returns once all that was written is on disk."""
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write_event(event)
