"""What a person meets in `python -m jules_jax.runs`: the trial count, and pruning that asks."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import pytest

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.training import registry, run_directory, run_history
from tests.test_commands import run

OLD = 1_600_000_000
"""A time of files that nobody writes to any more."""


def make_run(
    root: Path, name: str, *, agents: int = 1, outcome: str = "finished", **values
) -> None:
    """A run's lines in the registry and its directories, last written to long ago."""
    settings = config.load({"name": name, **values})
    run_dir, checkpoint = root / "runs" / name, root / "checkpoints" / name
    for directory in (run_dir, checkpoint):
        directory.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(config.to_yaml(settings), encoding="utf-8")
    row = {"update": 3, "rollout/ep_rew_mean": settings.ppo.ent_coef, "pnl/net": 12.5}
    (run_dir / "metrics.jsonl").write_text(json.dumps(row) + '\n{"half', encoding="utf-8")
    os.utime(run_dir / "metrics.jsonl", (OLD, OLD))
    (checkpoint / "weights").write_bytes(b"x" * 100)
    hashed = registry.config_hash(config.to_dict(settings))
    details = {
        "config_hash": hashed,
        "seed": settings.seed,
        "agents": agents,
        "data": "preset easy",
    }
    registry.append(root / "runs", "started", name, **details)
    if outcome:
        registry.append(root / "runs", outcome, name)


@pytest.fixture
def root(tmp_path):
    """Four runs: a, a population b, c that was killed, d."""
    make_run(tmp_path, "a", seed=5, ent_coef=0.01)
    make_run(tmp_path, "b", agents=8, outcome="diverged")
    make_run(tmp_path, "c", outcome="")
    make_run(tmp_path, "d", ent_coef=0.5, sell_fee_bps=0.7)
    return tmp_path


def places(root: Path) -> tuple[str, ...]:
    return "--runs-dir", str(root / "runs"), "--checkpoint-dir", str(root / "checkpoints")


def left(root: Path) -> dict[str, list[str]]:
    return {
        place: sorted(path.name for path in (root / place).iterdir() if path.is_dir())
        for place in ("runs", "checkpoints")
    }


def test_every_agent_ever_started_is_a_trial(root, capsys):
    status, out, _ = run(capsys, "runs", "list", *places(root))
    assert status == 0
    assert "11 agents trained in 4 runs: the trial count" in out
    for words in ("diverged", "no end recorded", "finished", "preset easy"):
        assert words in out


def test_openings_of_the_test_split_are_counted_by_the_run_whose_checkpoint_it_was(root, capsys):
    settings = config.load(
        {"runs_dir": str(root / "runs"), "checkpoint_dir": str(root / "checkpoints")}
    )
    run_history.opened_test_split(settings, root / "checkpoints" / "b" / "seed-1" / "40")
    run_history.opened_test_split(settings, root / "checkpoints" / "b" / "seed-2" / "40")
    run_history.opened_test_split(settings, root / "elsewhere" / "foreign" / "40")
    found = run_history.runs(registry.read(root / "runs"))
    assert {each.name: each.test_openings for each in found if each.test_openings} == {
        "b": 2, "foreign": 1,
    }  # fmt: skip
    assert run_history.trials(found) == 11, "an evaluation trains nobody"
    assert "3 openings of a test split" in run(capsys, "runs", "list", *places(root))[1]


def test_a_registry_that_cannot_be_written_keeps_the_test_split_closed(tmp_path):
    (tmp_path / "runs").write_text("a file where a directory should be")
    settings = config.load({"runs_dir": str(tmp_path / "runs")})
    with pytest.raises(InputError, match="cannot be written"):
        run_history.opened_test_split(settings, tmp_path / "x" / "40")


def test_a_resumed_run_is_one_trial_and_ends_as_it_ends_last(tmp_path):
    (tmp_path / "runs").mkdir()
    for event, details in (("started", {"agents": 1}), ("interrupted", {}), ("resumed", {})):
        registry.append(tmp_path / "runs", event, "x", **details)
    (found,) = run_history.runs(registry.read(tmp_path / "runs"))
    assert (found.agents, found.outcome) == (1, "no end recorded")
    registry.append(tmp_path / "runs", "finished", "x")
    (found,) = run_history.runs(registry.read(tmp_path / "runs"))
    assert (found.agents, found.outcome) == (1, "finished")


def test_comparing_two_runs_names_what_they_differ_in(root, capsys):
    status, out, _ = run(capsys, "runs", "compare", "a", "d", *places(root))
    assert status == 0
    keys = [line.split()[0] for line in out.splitlines()[1:]]
    assert {"seed", "ppo.ent_coef", "fills.sell_fee_bps"} <= set(keys)
    assert not {"ppo.gamma", "name"} & set(keys)
    assert next(line for line in out.splitlines() if "ep_rew_mean" in line).split()[1:] == [
        "0.01", "0.5",
    ]  # fmt: skip


def test_of_a_pruned_run_only_what_the_registry_has_is_compared(root, capsys):
    shutil.rmtree(root / "runs" / "a")
    status, out, _ = run(capsys, "runs", "compare", "a", "d", *places(root))
    assert status == 0
    keys = {line.split()[0] for line in out.splitlines()[1:]}
    assert {"outcome", "seed", "data"} <= keys and "ppo.ent_coef" not in keys
    assert f"{root / 'runs' / 'a'} is not there any more: its parameters are not known" in out


def test_a_config_is_the_same_one_wherever_and_under_whatever_name_it_runs():
    one, other = config.Config(name="a", runs_dir="here"), config.Config(name="b", devices=2)
    different = config.Config(seed=5)
    hashes = [registry.config_hash(config.to_dict(each)) for each in (one, other, different)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_run_is_shown_with_its_lines_and_its_last_whole_row_of_metrics(root, capsys):
    status, out, _ = run(capsys, "runs", "show", "b", *places(root))
    assert status == 0
    assert "agents 8" in out and "diverged" in out
    assert "last update 3" in out and "12.5" in out
    assert "gates " not in out
    rows = [{"gate": "entropy", "passed": False}, {"gate": "reward band", "passed": None}]
    verdict = {"checkpoint": "checkpoints/b/3", "gates": rows}
    (root / "runs" / "b" / "gates.json").write_text(json.dumps(verdict))
    _, out, _ = run(capsys, "runs", "show", "b", *places(root))
    assert out.rstrip().endswith("gates       failed: entropy (checkpoint 3)")


def test_pruning_keeps_the_newest_and_every_line_of_the_registry(root, capsys):
    before = (root / "runs" / "registry.jsonl").read_bytes()
    status, out, _ = run(capsys, "runs", "prune", "--keep", "1", "--yes", *places(root))
    assert status == 0
    assert "removed 3 runs" in out
    assert left(root) == {"runs": ["d"], "checkpoints": ["d"]}
    assert (root / "runs" / "registry.jsonl").read_bytes() == before
    assert "11 agents" in run(capsys, "runs", "list", *places(root))[1]


@pytest.mark.parametrize(("answer", "status"), [("n\n", 1), ("\n", 1), ("", 2), ("y\n", 0)])
def test_pruning_asks_first(root, capsys, monkeypatch, answer, status):
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    got, _, err = run(capsys, "runs", "prune", "--keep", "3", *places(root))
    assert got == status
    assert ("a" in left(root)["runs"]) is (status != 0)
    assert ("pass --yes" in err) is (answer == "")


def test_pruning_leaves_alone_what_no_run_of_the_registry_is_called(root, capsys):
    (root / "runs" / "mine").mkdir()
    outside = root / "outside"
    outside.mkdir()
    (root / "runs" / "linked").symlink_to(outside)
    for name in ("linked", "../outside", ".", ".."):
        registry.append(root / "runs", "started", name)
    run(capsys, "runs", "prune", "--keep", "1", "--yes", *places(root))
    assert outside.is_dir() and (root / "runs" / "linked").is_symlink()
    assert left(root) == {"runs": ["d", "linked", "mine"], "checkpoints": ["d"]}


def test_pruning_leaves_alone_a_run_that_may_be_going_on(root, capsys):
    os.utime(root / "runs" / "a" / "metrics.jsonl")
    _, out, _ = run(capsys, "runs", "prune", "--keep", "1", "--yes", *places(root))
    assert left(root)["runs"] == ["a", "d"]
    assert "stay, as trained or written to within the last hour: 1 of the older runs" in out
    assert (
        "nothing to remove besides the newest 1"
        in run(capsys, "runs", "prune", "--keep", "1", "--yes", *places(root))[1]
    )


def test_pruning_leaves_alone_a_population_whose_members_train(root, capsys):
    member = root / "runs" / "b" / "seed-1"
    member.mkdir()
    (member / "metrics.jsonl").write_text("")
    run(capsys, "runs", "prune", "--keep", "1", "--yes", *places(root))
    assert left(root)["runs"] == ["b", "d"]


def test_pruning_leaves_alone_a_run_that_a_process_holds(root, capsys):
    """One that compiles has written no metrics yet."""
    with run_directory.alone(root / "runs" / "a"):
        run(capsys, "runs", "prune", "--keep", "1", "--yes", *places(root))
    assert left(root)["runs"] == ["a", "d"]


def test_pruning_goes_by_when_a_run_last_began(root, capsys):
    registry.append(root / "runs", "resumed", "a", update=3)
    registry.append(root / "runs", "started", "b")  # the name is used again
    run(capsys, "runs", "prune", "--keep", "2", "--yes", *places(root))
    assert left(root)["runs"] == ["a", "b"]


def test_pruning_leaves_alone_a_policy_that_was_trained_elsewhere(root, capsys):
    shipped = root / "checkpoints" / "shipped" / "40"
    shipped.mkdir(parents=True)
    settings = config.load(
        {"runs_dir": str(root / "runs"), "checkpoint_dir": str(root / "checkpoints")}
    )
    run_history.opened_test_split(settings, shipped)
    registry.append(root / "runs", "started", "e")
    run(capsys, "runs", "prune", "--keep", "1", "--yes", *places(root))
    assert left(root)["checkpoints"] == ["d", "shipped"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("purge",), "unknown action 'purge', expected one of list, show, compare, share, prune"),
        (("show",), "show takes 1 runs, and was given: none"),
        (("show", "z"), "the registry has no run 'z'; the newest are: a, b, c, d"),
        (("compare", "a"), "compare takes 2 runs, and was given: a"),
        (("prune", "--keep", "0"), "--keep is '0', expected a whole number from 1"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(root, capsys, words, sentence):
    status, _, err = run(capsys, "runs", *words, *places(root))
    assert status == 2
    assert sentence in err


def test_a_line_torn_off_is_told_of_and_costs_no_more_than_itself(root, capsys):
    with open(root / "runs" / "registry.jsonl", "a", encoding="utf-8") as file:
        file.write('[1]\n{"time": "2026-03-01T00')  # edited, and torn off by a full disk
    registry.append(root / "runs", "resumed", "c", update=3)
    for action in (("list",), ("show", "c"), ("compare", "a", "d"), ("prune", "--yes")):
        status, _, err = run(capsys, "runs", *action, *places(root))
        assert status == 0
        assert "registry.jsonl: 2 of its lines cannot be read" in err
    assert registry.read(root / "runs")[-1]["event"] == "resumed"
    assert run_directory.saved_settings("latest", str(root / "runs"))["name"].value == "c"
