"""Processes: several of them, on one machine or many, train one agent.

All of them run the same program and come to the same decisions; where only one can decide, such as
what a run is to be called, the first does. The first also has the run's directory and the word:
the others keep the same records where nobody looks, as populations decide by them, and are silent.
A process that ends for any other reason than that training is over ends the others with it, within
`HEARTBEAT` seconds: the exchange of gradients cannot go on without it.
"""

from __future__ import annotations

import atexit
import importlib.util
import itertools
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    redirect_stdout,
    suppress,
)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import jax

from jules_jax import config
from jules_jax.errors import InputError, status_of
from jules_jax.training import backend
from jules_jax.training.run_directory import RunDirectory

T = TypeVar("T")

HEARTBEAT = 60
"""Seconds without a sign of life after which a process counts as lost."""
START = 300
"""Seconds that processes wait for each other at the beginning, and for a decision."""
PARTING = 10
"""Seconds that a process which ends early waits for the others to do so, too."""
LOST = 4
"""Exit status of a process that cannot go on without another."""
LAUNCHERS = (
    # what JAX calls it, the package it needs, how many processes there are, what else is there
    ("slurm", "", "SLURM_NTASKS", ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_NODELIST")),
    ("ompi", "", "OMPI_COMM_WORLD_SIZE", ("OMPI_MCA_orte_hnp_uri",)),
    ("mpi4py", "mpi4py", "OMPI_COMM_WORLD_SIZE", ()),
    ("mpi4py", "mpi4py", "PMI_SIZE", ()),
    ("k8s", "kubernetes", "", ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")),
)
SIGNS_OF_LOSS = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED")
"""What JAX's account of an error has where it is another process's."""
GO_ON = "--resume goes on from the newest checkpoint, on as many processes as there are"
_DECISIONS = itertools.count()
"""The n-th decision of a process is the n-th of all."""


@dataclass(frozen=True)
class Cluster:
    """How the processes of a run find each other; what is None the launcher tells.

    launcher: as JAX names it, None where everything was given.
    """

    launcher: str | None
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def cluster(
    given: Mapping[str, str | None], environ: Mapping[str, str] = os.environ
) -> Cluster | None:
    """What the flags `coordinator`, `num_processes` and `process_id` and the launcher ask for.

    None: this process is alone, as `--num-processes 1` says whatever the launcher does. Raises
    `InputError` where a flag is missing, or no number.
    """
    flags = {name: given[name] for name in ("coordinator", "num_processes", "process_id")}
    if flags["num_processes"] == "1":
        return None
    missing = [name for name, value in flags.items() if value is None]
    launcher = _launcher(environ) if missing else None
    if len(missing) == len(flags):
        return Cluster(launcher) if launcher else None
    if missing and not launcher:
        raise InputError(
            f"--{missing[0].replace('_', '-')} is missing, expected --coordinator HOST:PORT, "
            "--num-processes and --process-id together, outside Slurm, MPI and Kubernetes"
        )
    coordinator = flags["coordinator"]
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator is {coordinator!r}, expected HOST:PORT of process 0")
    count, place = (_whole(name, flags[name]) for name in ("num_processes", "process_id"))
    if count == 0:
        raise InputError("--num-processes is 0, expected 1 or more")
    if count is not None and place is not None and place >= count:
        raise InputError(f"--process-id is {place}, expected 0 to {count - 1}")
    return Cluster(launcher, coordinator, count, place)


def _launcher(environ: Mapping[str, str]) -> str | None:
    """What started several processes; raises `InputError` where a package is missing to ask it."""
    for name, package, count, others in LAUNCHERS:
        several = not count or environ.get(count, "1") not in ("", "0", "1")
        if not several or not all(other in environ for other in others):
            continue
        if not package or importlib.util.find_spec(package):
            return name
        if count:  # without one there may be no others
            raise InputError(
                f"{count} is {environ[count]} and {package} is not installed, expected it (pip "
                f"install {package}), --coordinator, --num-processes and --process-id, or "
                "--num-processes 1 to train alone"
            )
    return None


def _whole(name: str, text: str | None) -> int | None:
    if text is not None and not text.isdigit():
        raise InputError(f"--{name.replace('_', '-')} is {text!r}, expected a whole number")
    return None if text is None else int(text)


@contextmanager
def joined(found: Cluster | None, settings: config.Config) -> Iterator[None]:
    """This process among those of the run, for as long as it lasts; alone where there are none.

    Enter before JAX's first array: what the settings ask of JAX is told to it here. What ends it
    early ends the process, with the status that the error has, and waits for the others no
    longer than `PARTING` seconds: they may wait for it.
    """
    if found is None:
        backend.configure(settings)
        yield
        return
    apart = (
        f"error: the processes of the run did not find each other in {START} s, expected all of "
        "them to be started, and process 0 to be reached at --coordinator HOST:PORT"
    )
    word = _LastWord(apart)
    try:
        _initialize(found)
    except (RuntimeError, ValueError, ImportError) as error:
        word.unsaid()
        raise InputError(
            f"{apart.removeprefix('error: ')} ({str(error).splitlines()[0]})"
        ) from None
    backend.configure(settings, _state().num_processes)
    word.be(
        f"error: process {jax.process_index()} of {jax.process_count()} ended abruptly: it was "
        f"killed, or has lost another process of the run; {GO_ON}"
    )
    try:
        with nullcontext() if is_first() else _silence():
            yield
        jax.distributed.shutdown()
    except BaseException as error:
        _leave(error, word)
    word.unsaid()


@contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def _initialize(found: Cluster) -> None:
    jax.distributed.initialize(
        found.coordinator,
        found.num_processes,
        found.process_id,
        cluster_detection_method="deactivate" if found.launcher is None else found.launcher,
        initialization_timeout=START,
        heartbeat_timeout_seconds=HEARTBEAT,
    )


class _LastWord:
    """A child that says what happened where this process can no longer.

    JAX ends a process that has lost the others from within, with a trace of itself. The child waits
    for the end of its input, and says the last line of it, if there is one.
    """

    def __init__(self, sentence: str) -> None:
        code = "import sys\n*_, said = sys.stdin\nsys.stderr.write(said.lstrip())"
        command = [sys.executable, "-S", "-c", code]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        self.be(sentence)

    def be(self, sentence: str) -> None:
        """What is to be said from now on."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{sentence}\n")
        self._child.stdin.flush()

    def unsaid(self) -> None:
        """Nothing need be said: this process can speak for itself."""
        self._child.communicate("\n")


def _leave(error: BaseException, word: _LastWord) -> None:
    """Ends this process with what the error has to say."""
    word.unsaid()
    reason = str(error).partition("\n")[0]
    is_lost = any(sign in reason for sign in SIGNS_OF_LOSS)
    if is_lost and isinstance(error, jax.errors.JaxRuntimeError):
        print(
            f"error: process {jax.process_index()} of {jax.process_count()} cannot go on, as "
            f"another process of the run has ended or cannot be reached ({reason}); {GO_ON}",
            file=sys.stderr,
        )
        status = LOST
    else:
        status = status_of(error)
        with suppress(jax.errors.JaxRuntimeError, AttributeError):  # none once it has shut down
            _client().wait_at_barrier("jules_jax/parting", 1000 * PARTING)
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def is_first() -> bool:
    """Whether this process is the one that speaks, or alone."""
    return jax.process_index() == 0


def own(run: RunDirectory) -> RunDirectory:
    """The run's directories, with a place of its own for the records of a process not the first."""
    if is_first():
        return run
    scratch = tempfile.TemporaryDirectory(prefix="jules_jax-")
    records = Path(scratch.name) / run.name
    records.mkdir()
    atexit.register(scratch.cleanup)
    return replace(run, records=records, made=())


def first_decides(decide: Callable[[], T]) -> T:
    """What the first process makes of it, in all; raises `InputError` in all where it does."""
    if jax.process_count() == 1:
        return decide()
    name = f"jules_jax/decision/{next(_DECISIONS)}"
    if not is_first():
        decided, refusal = pickle.loads(_client().blocking_key_value_get_bytes(name, 1000 * START))
        if refusal is not None:
            raise InputError(refusal)
        found: T = decided
        return found
    try:
        found, refusal = decide(), None
    except InputError as error:
        _client().key_value_set_bytes(name, pickle.dumps((None, str(error))))
        raise
    _client().key_value_set_bytes(name, pickle.dumps((found, refusal)))
    return found


def everyones(word: str) -> list[str]:
    """What every process says at this place of the program, in their order."""
    if jax.process_count() == 1:
        return [word]
    name = f"jules_jax/word/{next(_DECISIONS)}"
    _client().key_value_set(f"{name}/{jax.process_index()}", word)
    return [
        str(_client().blocking_key_value_get(f"{name}/{process}", 1000 * START))
        for process in range(jax.process_count())
    ]


def require_alike(what: str, own: str) -> None:
    """Raises `InputError` in all processes where one has another `own` than the first has.

    They would train something else each, or wait for each other for ever.
    """
    first, *others = everyones(own)
    for place, other in enumerate(others, start=1):
        if other != first:
            raise InputError(
                f"process {place} has other {what} than process 0, expected the same command and "
                "files for all"
            )


def all_can(attempt: Callable[[], T], kind: type[InputError]) -> T:
    """What `attempt` gives; where it raises an error of this `kind` in one process, it does in all.

    For what reads the same files in every process, and must not go on in some of them.
    """
    failure, found = "", None
    try:
        found = attempt()
    except kind as error:
        failure = str(error)
    failures = [told for told in everyones(failure) if told]
    if failures:
        raise kind(failures[0])
    result: T = found  # type: ignore[assignment]
    return result


@contextmanager
def first_enters(context: AbstractContextManager[Any]) -> Iterator[None]:
    """Entered by the first process, for all; raises `InputError` in all where it cannot be."""
    with ExitStack() as stack:
        first_decides(lambda: bool(stack.enter_context(context)))
        yield


def anyones(asked: signal.Signals | None) -> signal.Signals | None:
    """The signal that came to any of the processes, once training is over in all."""
    numbers = [int(number) for number in everyones(str(int(asked or 0)))]
    return next((signal.Signals(number) for number in numbers if number), None)


def stop_after(asked: signal.Signals | None, update: int) -> signal.Signals | None:
    """The signal that ends the run after `update`, the same one in every process.

    asked: of this process. A process cannot be two updates ahead of another, since it fetches the
    metrics of each before it dispatches the next but one, and those need all: what one asks for
    while it dispatches update u every other knows when it comes to u + 2, and all end there.
    """
    if jax.process_count() == 1:
        return asked
    name = "jules_jax/stop"
    if asked is not None:
        with suppress(jax.errors.JaxRuntimeError):  # another process was first
            _client().key_value_set(name, f"{int(asked)} {update + 2}")
    try:
        number, last = _client().key_value_try_get(name).split()
    except jax.errors.JaxRuntimeError:  # nobody has asked
        return None
    return signal.Signals(int(number)) if update >= int(last) else None


def _client() -> Any:
    """JAX's store of keys and values that all processes see."""
    return _state().client


def _state() -> Any:
    """What JAX knows of the processes; there is no public way to it."""
    from jax._src import distributed

    return distributed.global_state
