"""Phases: one config after the other, each only if the one before passed its gates."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from jules_jax import config, train
from jules_jax.config import Setting
from jules_jax.errors import InputError, Stopped
from jules_jax.training import phases
from jules_jax.training.loop import Result
from jules_jax.training.phases import Phase
from tests.tiny import SETTINGS


@dataclass
class Judgement:
    passed: bool

    def text(self):
        return "the table"

    def write(self):
        pass


class Night:
    """Notes what is trained and judged; phases named in `bad` fail."""

    def __init__(self, *bad):
        self.bad, self.events, self.said = bad, [], []

    def train(self, settings, init_from):
        self.events.append(("train", settings.name, init_from))
        place = Path("checkpoints") / settings.name / "4"
        return Result(settings.name, Path("runs"), place, {}, 1.0)

    def judge(self, checkpoint, settings):
        self.events.append(("judge", settings.name, checkpoint))
        return Judgement(settings.name not in self.bad)

    def of(self, *names):
        course = [Phase(name, config.load(SETTINGS | {"name": name})) for name in names]
        return phases.run(course, train=self.train, judge=self.judge, say=self.said.append)


def checkpoint(name):
    return Path("checkpoints") / name / "4"


def test_each_phase_begins_with_the_weights_of_the_one_before():
    night = Night()
    assert night.of("a", "b", "c").passed
    assert night.events == [
        ("train", "a", None),
        ("judge", "a", checkpoint("a")),
        ("train", "b", checkpoint("a")),
        ("judge", "b", checkpoint("b")),
        ("train", "c", checkpoint("b")),
        ("judge", "c", checkpoint("c")),
    ]


def test_a_phase_that_fails_its_gates_is_the_last():
    night = Night("b")
    course = night.of("a", "b", "c")
    assert not course.passed
    assert [run.name for run in course.runs] == ["a", "b"]
    assert ("train", "c", checkpoint("b")) not in night.events
    assert night.said[-1] == "phase b failed its gates; not begun: c"


@pytest.mark.parametrize(("status", "ends"), [(0, 143), (130, 130)], ids=["SIGTERM", "Ctrl-C"])
def test_a_course_that_was_stopped_has_not_been_passed(monkeypatch, status, ends):
    night = Night()

    def train(settings, init_from):
        if settings.name == "b":
            raise Stopped("by a signal after update 2 of 4", status)
        return Night.train(night, settings, init_from)

    monkeypatch.setattr(night, "train", train)
    with pytest.raises(Stopped, match="update 2 of 4; phase b was not judged; not begun: c") as end:
        night.of("a", "b", "c")
    assert end.value.status == ends


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A directory with configs/a.yaml and b.yaml, of two networks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for name, width in (("a", 8), ("b", 16)):
        (tmp_path / "configs" / f"{name}.yaml").write_text(
            f"seed: 3\nnetwork: {{lstm_hidden_size: {width}}}\n"
        )
    return tmp_path


def test_phases_are_files_or_names_and_flags_are_for_all_of_them(folder):
    flags = {"num_envs": Setting("64", "here"), "name": Setting("night", "here")}
    first, second = phases.read("a, configs/b.yaml", flags)
    assert (first.name, second.name) == ("a", "b")
    assert [each.settings.name for each in (first, second)] == ["night-a", "night-b"]
    assert [each.settings.num_envs for each in (first, second)] == [64, 64]
    assert [each.settings.network.lstm_hidden_size for each in (first, second)] == [8, 16]


@pytest.mark.parametrize(
    ("names", "flags", "message"),
    [
        ("a,,b", (), "--phases is 'a,,b', expected configs such as"),
        ("a,none", (), "cannot read config file configs/none.yaml: No such file"),
        ("a,b", (), "phase b has another network than a, expected the same"),
        ("a,a", ("--name", "x"), "two phases would have the same run directory"),
        ("a", ("--num-seeds", "2"), "phase a is a population, expected a single agent"),
        ("a", ("--data", "nowhere.csv"), "nowhere.csv"),
        ("a", ("--devices", "64"), "devices: found 64|devices is 64"),
        ("a", ("--config", "configs/a.yaml"), "--phases goes with parameters only, found"),
        ("a", ("--dry-run",), "--phases goes with parameters only, found"),
    ],
)
def test_what_cannot_go_well_is_refused_before_anything_is_trained(
    folder, monkeypatch, names, flags, message
):
    monkeypatch.setattr("sys.argv", ["train", "--phases", names, *flags])
    with pytest.raises(InputError, match=message):
        train.main()
    assert not (folder / "runs").exists() and not (folder / "checkpoints").exists()
