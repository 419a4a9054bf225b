"""Walk-forward from the command: folds are runs, tests are joined, what is finished stays so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jules_jax import config
from jules_jax.env.params import make_params
from jules_jax.errors import InputError
from jules_jax.evaluation import assessment, backtest, prices, reference_policies
from jules_jax.evaluation.audit import recording
from jules_jax.evaluation.report import schema
from jules_jax.market import rolling
from jules_jax.training import checkpoints, loop, registry, run_history, walk_forward
from jules_jax.training.examination import Asked
from jules_jax.training.walk_forward import WalkForward
from tests.test_commands import outputs, run
from tests.tiny import SETTINGS, TINY, write_bars

pytestmark = pytest.mark.usefixtures("quick_compilation")

WINDOWS = rolling.parse("train=4d,test=2d,step=2d")
GREEDY, SAMPLED = "trained, greedy", "trained, sampled"
HOURS = {"market.calendar": "regular", "market.session_close": "10:30"}
"""Of `bars_frame`: 60 bars a session, so that tables are equally long and share a program."""
DAYS = [str(day.date()) for day in pd.bdate_range("2025-03-03", periods=12)]


def settings_of(root: Path, **values: str) -> config.Config:
    places = {"runs_dir": str(root / "runs"), "checkpoint_dir": str(root / "checkpoints")}
    bars = {"market.data": str(root / "bars"), "name": "walk"}
    return config.load({**SETTINGS, **HOURS, **places, **bars, **values})


def write_two(root: Path) -> None:
    """AAA and BBB, 12 sessions each, so that all tests share their programs."""
    (root / "bars").mkdir()
    for seed, symbol in enumerate(("AAA", "BBB"), 1):
        write_bars(root / "bars" / f"{symbol}.csv", sessions=12, seed=seed)


def walk(
    settings: config.Config,
    windows: rolling.Windows = WINDOWS,
    *,
    draws: int = 2,
    out: Path | None = None,
    init_from: Path | None = None,
    said: list[str] | None = None,
) -> WalkForward:
    say = (said if said is not None else []).append
    return walk_forward.run(
        settings, windows, Asked(draws=draws, out=out), init_from=init_from, say=say
    )  # fmt: skip


def net(found: WalkForward, who: str) -> list[list[float]]:
    """Net P&L `[K, D]` of the joined tests."""
    dollars: list[list[float]] = found.judged.found.ledgers[who].sums["pnl/net"].tolist()
    return dollars


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, WalkForward]:
    root = tmp_path_factory.mktemp("walked")
    write_two(root)
    return root, walk(settings_of(root), out=root / "report")


@pytest.fixture
def again(walked: tuple[Path, WalkForward], tmp_path: Path) -> tuple[config.Config, list[str]]:
    """A copy of everything that the walk left, and what the next one says."""
    shutil.copytree(walked[0], tmp_path, dirs_exist_ok=True)
    return settings_of(tmp_path), []


def registered(settings: config.Config) -> list[tuple[str, str]]:
    return [(x["event"], x["run"]) for x in registry.read(Path(settings.runs_dir))]


def test_three_folds_are_trained_and_tested_on_the_sessions_counted_by_hand(walked) -> None:
    _, found = walked
    assert [str(each.fold.train) for each in found.folds] == [
        f"{DAYS[0]} to {DAYS[3]}", f"{DAYS[2]} to {DAYS[5]}", f"{DAYS[4]} to {DAYS[7]}",
    ]  # fmt: skip
    # the embargo is the day between
    assert list(found.judged.found.prices.labels) == DAYS[5:11]


def test_every_fold_is_a_run_with_its_dates_and_its_test_opened_once(walked) -> None:
    root, found = walked
    settings = settings_of(root)
    names = [f"walk-fold{number}" for number in range(3)]
    events = ("started", "finished", run_history.OPENED)
    assert registered(settings) == [(event, name) for name in names for event in events]
    told = walk_forward.as_json(found)
    # four records, of two policies each, are of two trials: the folds' runs are more
    assert (told["trials"], told["test_openings"]) == (3, 3)
    for name, each in zip(names, found.folds, strict=True):
        saved = config.load(file=root / "checkpoints" / name / "config.yaml")
        assert saved.splits == each.fold.splits
        assert each.weights.checkpoint == root / "checkpoints" / name / "4"  # the last update
        digest = checkpoints.load_meta(each.weights.checkpoint)["digest"]["params"]
        assert each.weights.digest == digest


def test_folds_begin_with_new_weights_each(walked) -> None:
    root, _ = walked
    params = [
        checkpoints.load_meta(root / "checkpoints" / f"walk-fold{number}" / "0")["digest"]["params"]
        for number in range(3)
        if (root / "checkpoints" / f"walk-fold{number}" / "0").exists()
    ]
    assert len(params) == 3 and len(set(params)) == 1  # of the seed, not of the fold before


def test_the_joined_history_is_that_of_the_tests_one_after_the_other(walked) -> None:
    _, found = walked
    whole = found.judged.found
    assert list(whole.ledgers)[:2] == [GREEDY, SAMPLED] and "buy and hold" in whole.ledgers
    for who in whole.ledgers:
        parts = [each.found.ledgers[who].sums["pnl/net"] for each in found.folds]
        assert net(found, who) == np.concatenate(parts, axis=1).tolist()
        assert parts[0].shape == (4, 2)


def test_a_fold_is_tested_as_any_evaluation_tests_its_checkpoint(walked) -> None:
    root, found = walked
    each = found.folds[1]
    settings = config.load(file=root / "checkpoints" / "walk-fold1" / "config.yaml")
    final = settings.for_evaluation()
    params = checkpoints.load_params(each.weights.checkpoint, settings)
    alone = assessment.assess(final, params, prices.recorded(final, "test", 2))
    assert list(alone.ledgers) == list(each.found.ledgers)
    for who, ledger in alone.ledgers.items():
        for name, sums in ledger.sums.items():
            np.testing.assert_array_equal(sums, each.found.ledgers[who].sums[name])


def test_a_test_adds_up_to_an_episode_through_all_of_its_sessions(walked) -> None:
    """Buy and hold, played once more as one episode from the first row of AAA to its last."""
    root, found = walked
    settings = config.load(file=root / "checkpoints" / "walk-fold0" / "config.yaml")
    (chunk,) = prices.recorded(settings.for_evaluation(), "test", 2).chunks()
    played = backtest.run_episodes(
        reference_policies.buy_and_hold(), (), make_params(chunk.config, chunk.market),
        chunk.starts, chunk.key,
    )  # fmt: skip
    ledger = found.folds[0].found.ledgers["buy and hold"]
    for name in ("pnl/net", "pnl/gross", "trade/turnover", "trade/orders"):
        np.testing.assert_allclose(ledger.totals(name), played[name], rtol=1e-4, atol=0.02)


@pytest.mark.long
def test_a_fold_is_what_its_run_trained_alone_would_be(walked, tmp_path: Path) -> None:
    root, found = walked
    fold = found.folds[1].fold
    alone = replace(settings_of(tmp_path), splits=fold.splits)
    bars = replace(alone.market, data=str(root / "bars"))
    result = loop.train(replace(alone, market=bars), say=lambda text: None)
    digests = [
        checkpoints.load_meta(path)["digest"]["params"]
        for path in (result.checkpoint, found.folds[1].weights.checkpoint)
    ]
    assert digests[0] == digests[1]


def test_the_report_is_a_whole_one_with_every_fold_in_it(walked) -> None:
    root, found = walked
    told = json.loads((root / "report" / "report.json").read_text())
    schema.check(told)
    page = (root / "report" / "report.html").read_text()
    assert (root / "report" / "walk-forward.png").is_file() and "BBB" in page
    part = told["walk_forward"]
    tests = [[DAYS[5], DAYS[6]], [DAYS[7], DAYS[8]], [DAYS[9], DAYS[10]]]
    assert [fold["test"] for fold in part["folds"]] == tests
    assert part["windows"] == "train=4d,test=2d,step=2d"
    assert list(told["policies"]) == list(found.judged.found.ledgers)
    own = told["policies"][GREEDY]
    assert own["daily"]["labels"] == DAYS[5:11] and part["overall"] == own["overall"]
    total = own["overall"]["net_pnl"]["value"]
    assert sum(fold["net_pnl"] for fold in part["folds"]) == pytest.approx(total)
    assert sum(own["daily"]["net"]) == pytest.approx(total)
    sampled = told["policies"][SAMPLED]["overall"]["net_pnl"]["value"]
    assert sum(fold["sampled_net_pnl"] for fold in part["folds"]) == pytest.approx(sampled)
    best = [fold["best_reference_net_pnl"] for fold in part["folds"]]
    assert min(best) >= 0  # who does nothing is a reference policy
    assert part["sentence"] == told["sentence"] and "6 unseen sessions in 3 test windows" in page
    hashes = [each.weights.digest for each in found.folds]
    assert told["provenance"]["checkpoint_hash"].splitlines() == hashes
    assert [fold["checkpoint_hash"] for fold in part["folds"]] == hashes
    assert told["provenance"]["checkpoint"].count("\n") == 2 and told["gates"] is None
    assert {one["label"].split()[0] for one in told["sessions_shown"]} <= set(DAYS[5:11])
    assert told["unit"] == "account through 6 sessions"


def test_the_twin_replays_every_fold_and_a_doctored_step_is_told_of(
    walked, again, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, found = walked
    replayed = json.loads((root / "report" / "report.json").read_text())["replay"]
    assert found.agrees and replayed["disagreements"] == 0
    assert replayed["episodes"] == 3 * 2 * 4  # folds, trained policies, accounts
    until = recording.until

    def doctored(*arguments: Any) -> recording.Played:
        once = until(*arguments)
        less = once.record.cost_fees.at[0, 3].add(1.0)
        return replace(once, record=replace(once.record, cost_fees=less))

    monkeypatch.setattr(recording, "until", doctored)
    settings, said = again
    repeated = walk(settings, said=said)
    assert not repeated.agrees and "cost_fees" in "\n".join(said)


def test_finished_folds_are_neither_trained_nor_counted_again(walked, again) -> None:
    settings, said = again
    before = registered(settings)
    repeated = walk(settings, said=said)
    opened = [(run_history.OPENED, f"walk-fold{number}") for number in range(3)]
    # the checkpoints lie elsewhere now, so these openings are others
    assert registered(settings) == before + opened
    assert sum(text.startswith("trained before") for text in said) == 3
    for who in walked[1].judged.found.ledgers:
        assert net(repeated, who) == net(walked[1], who)
    walk(settings, said=said)
    assert registered(settings) == before + opened


@pytest.mark.long
def test_a_missing_and_an_interrupted_fold_are_made_up_for(walked, again) -> None:
    settings, said = again
    for place in (settings.runs_dir, settings.checkpoint_dir):
        shutil.rmtree(Path(place) / "walk-fold2")
    shutil.rmtree(Path(settings.checkpoint_dir) / "walk-fold1" / "4")  # as if stopped before
    repeated = walk(settings, said=said)
    assert [event for event in registered(settings)[9:] if event[0] in ("started", "resumed")] == [
        ("resumed", "walk-fold1"), ("started", "walk-fold2"),
    ]  # fmt: skip
    for who in repeated.judged.found.ledgers:
        assert net(repeated, who) == net(walked[1], who)


def test_other_settings_other_bars_and_other_weights_are_refused_by_name(walked, again) -> None:
    settings, _ = again
    before = registered(settings)

    def refused(windows: str = str(WINDOWS), init_from: Path | None = None, **values: str) -> str:
        root = Path(settings.runs_dir).parent
        asked = settings_of(root, **values)
        with pytest.raises(InputError) as error:
            walk(asked, rolling.parse(windows), init_from=init_from)
        return str(error.value)

    assert "walk-fold0 was trained with ppo.gamma" in refused(**{"ppo.gamma": "0.5"})
    assert "splits.test_until '2025-03-11', and '2025-03-12'" in refused("train=4d,test=3d")
    weights = Path(settings.checkpoint_dir) / "walk-fold0"
    sentence = refused(init_from=weights)
    assert "began with new weights, and those of" in sentence and "asked for" in sentence
    write_bars(Path(settings.market.data) / "AAA.csv", sessions=12, seed=5)
    assert "AAA.csv changed since the run began" in refused()
    assert registered(settings) == before


@pytest.mark.long
def test_weights_to_begin_with_are_told_of_and_remembered(again) -> None:
    settings, said = again
    weights = Path(settings.checkpoint_dir) / "walk-fold0"
    of_one = replace(settings, name="from", splits=config.Splits(test_until=DAYS[6]))
    for _ in range(2):  # the second time they are those that the run began with
        found = walk(
            of_one, rolling.parse("train=4d,test=2d"), init_from=weights, draws=1, said=said
        )
    assert len(found.folds) == 1
    assert any("what those were trained on is not unseen" in note for note in found.notes)
    assert any(text.startswith("weights     from") for text in said)


@pytest.mark.long
def test_the_best_by_validation_is_tested_where_there_is_one(again) -> None:
    settings, said = again
    kept = replace(settings.checkpoints, validation_episodes=4, every=1, keep=1)
    asked = replace(settings, name="validated", checkpoints=kept)
    windows = rolling.parse("train=6d,test=2d,step=6d,validation=2d")
    (tested,) = walk(asked, windows, draws=1, said=said).folds
    checkpoint = tested.weights.checkpoint
    newest = checkpoints.steps(checkpoint.parent)[0]
    scores = checkpoints.load_meta(newest)["run"]["scores"]
    assert len(scores) >= 4
    assert scores[checkpoint.name] == max(scores.values())


@pytest.mark.parametrize(
    ("windows", "values", "sentence"),
    [
        ("train=10d,test=4d", {}, "12 sessions, 2025-03-03 to 2025-03-18, expected at least 15"),
        ("train=1d,test=3d", {"max_steps_in_episode": "70"}, "the train split .* fewer than"),
        (
            "train=6d,test=3d,validation=1d",
            {},
            r"the validation split \(2025-03-10 to 2025-03-10\) has 0 bars",
        ),
        ("train=4d,test=2d", {"market.data": ""}, "needs bars: market.data is empty"),
        ("train=4d,test=2d", {"num_seeds": "2"}, "one agent a fold, expected no population"),
        (
            "train=4d,test=2d",
            {"splits.train_from": "2026-01-01"},
            "no session from splits.train_from, 2026-01-01",
        ),
    ],
)
def test_what_cannot_be_walked_is_told_before_anything_is_trained(
    tmp_path: Path, windows: str, values: dict[str, str], sentence: str
) -> None:
    write_two(tmp_path)
    with pytest.raises(InputError, match=sentence) as error:
        walk(settings_of(tmp_path, **values), rolling.parse(windows))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "checkpoints").exists()


def test_a_config_is_enough_for_the_command(tmp_path: Path, capsys) -> None:
    write_two(tmp_path)
    hours = [word for key, value in HOURS.items() for word in (f"--{key}", value)]
    flags = (*TINY, *hours, "--data", tmp_path / "bars", *outputs(tmp_path), "--seeds", "2")
    until = ("--splits.test-until", DAYS[6])
    walk = ("--walk-forward", "train=4d,test=2d", "--out", tmp_path / "report", *until)
    status, out, err = run(capsys, "evaluate", *walk, *flags)
    assert status == 0, err
    assert f"fold 0      trained {DAYS[0]} to {DAYS[3]}, tested {DAYS[5]} to {DAYS[6]}" in out
    assert "in 1 test window" in out and "\nbuy and hold " in out
    assert f"\nfold 0  {DAYS[0]} to {DAYS[3]}  {DAYS[5]} to {DAYS[6]}         2 " in out
    assert "fold 0      the twin agrees on" in out
    assert (tmp_path / "report" / "report.html").is_file()

    checkpoint = tmp_path / "checkpoints" / "walk-bars-fold0"
    walk = ("--checkpoint", checkpoint, "--walk-forward", "train=4d,test=2d", "--seeds", "2")
    status, again, err = run(capsys, "evaluate", *walk, "--name", "walk-bars")
    assert status == 0, err
    assert "trained before" in again  # the config of the checkpoint is all that this fold is

    def told(text: str) -> str:
        return text[text.index("\naccount through") : text.index("in 1 test window")]

    assert told(again) == told(out)
    for of_one in (("--split", "test"), ("--audit", "3"), ("--stress",)):
        status, _, err = run(capsys, "evaluate", "--walk-forward", "train=4d", *of_one, *flags)
        assert status == 2 and f"{of_one[0]} does not go with --walk-forward" in err
    status, _, err = run(capsys, "evaluate", "--walk-forward", "train=4", *flags)
    assert (status, err.count("\n")) == (2, 1) and "has 'train=4', expected" in err
    status, _, err = run(capsys, "evaluate", "--episodes", "4")
    assert status == 2 and "--checkpoint is missing" in err
