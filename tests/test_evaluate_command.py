"""What a person meets: `python -m jules_jax.evaluate`, what it writes and how it refuses."""

from __future__ import annotations

import dataclasses
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest

from jules_jax import config
from jules_jax.agent.learner import Learner
from jules_jax.env.episodes import Episodes
from jules_jax.env.params import make_params
from jules_jax.errors import InputError
from jules_jax.evaluation import assessment, audit, robustness
from jules_jax.evaluation.assessment import Assessment
from jules_jax.evaluation.audit import recording
from jules_jax.evaluation.backtest import Starts
from jules_jax.evaluation.report import schema
from jules_jax.training import checkpoints, examination, market, registry, scenarios
from jules_jax.training.examination import Asked
from tests.evaluation import played
from tests.tiny import bars_frame

pytestmark = pytest.mark.usefixtures("quick_compilation")

GREEDY, SAMPLED = "trained, greedy", "trained, sampled"
EPISODES = 4
FEW = (GREEDY, "flat")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluated")


@pytest.fixture(scope="module")
def settings(root: Path) -> config.Config:
    """Of a run on simulated paths."""
    places = {"runs_dir": str(root / "runs"), "checkpoint_dir": str(root / "checkpoints")}
    return config.load(played.EAGER | places | {"name": "tiny"})


@pytest.fixture(scope="module")
def checkpoint(root: Path, settings: config.Config) -> Path:
    """Weights that nobody trained, saved as a run saves them."""
    params = make_params(settings, market.Market(settings).data, progress=0.0)
    state = Learner(Episodes(), settings).init(jax.random.key(0), params)
    place = root / "checkpoints" / "tiny"
    checkpoints.save(place, state, generation=0, settings=settings)
    return place


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AAA and BBB; two sessions of validation and two of test."""
    place = tmp_path_factory.mktemp("bars")
    for seed, symbol in enumerate(("AAA", "BBB")):
        bars_frame(sessions=6, bars=390, seed=seed).to_csv(place / f"{symbol}.csv", index=False)
    return place


def on_bars(settings: config.Config, bars: Path) -> config.Config:
    chosen = {"validation_from": "2025-03-06", "test_from": "2025-03-08", "embargo_sessions": "0"}
    recorded = config.load(played.EAGER | chosen | {"market.data": str(bars)})
    return dataclasses.replace(settings, market=recorded.market, splits=recorded.splits)


@dataclasses.dataclass
class Examined:
    """An examination: whether the twin agreed, what was said, found and written."""

    agrees: bool
    said: str
    found: Assessment
    out: Path

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "report.json").read_text())
        return found


def examined(settings: config.Config, checkpoint: Path, asked: Asked) -> Examined:
    """`examination.examine`, with what it assessed."""
    kept: list[Assessment] = []
    said: list[str] = []
    assess = assessment.assess

    def remembered(*arguments: Any, **options: Any) -> Assessment:
        kept.append(assess(*arguments, **options))
        return kept[0]

    path = checkpoints.find(checkpoint)
    params = checkpoints.load_params(path, settings)
    assert asked.out is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assessment, "assess", remembered)
        agrees = examination.examine(settings, path, params, asked, said.append)
    return Examined(agrees, "\n".join(said), kept[0], asked.out)


@pytest.fixture(scope="module")
def simulated(root: Path, settings: config.Config, checkpoint: Path) -> Examined:
    asked = Asked(episodes=EPISODES, out=root / "simulated", audited=2)
    return examined(settings, checkpoint, asked)


@pytest.fixture(scope="module")
def recorded(root: Path, settings: config.Config, checkpoint: Path, bars: Path) -> Examined:
    own = on_bars(settings, bars)
    return examined(own, checkpoint, Asked(split="test", draws=2, out=root / "recorded"))


@pytest.fixture(params=["simulated", "recorded"])
def either(request: pytest.FixtureRequest) -> Examined:
    found: Examined = request.getfixturevalue(request.param)
    return found


def test_the_twin_agrees_and_the_report_is_written(either: Examined) -> None:
    assert either.agrees
    assert (either.out / "report.html").stat().st_size > 10_000 and list(either.out.glob("*.png"))
    report = either.report
    schema.check(report)
    assert report["replay"]["disagreements"] == 0
    assert report["replay"]["episodes"] == 2 * EPISODES  # of both trained policies
    assert report["sentence"] in either.said


def test_all_policies_are_in_the_table_and_flat_earns_nothing(either: Examined) -> None:
    names = list(either.report["policies"])
    assert names[:2] == [GREEDY, SAMPLED] and {"flat", "random", "buy and hold"} <= set(names)
    assert all(f"\n{name} " in either.said for name in names)
    flat = either.report["policies"]["flat"]["overall"]
    assert flat["net_pnl"]["value"] == flat["turnover"]["value"] == 0
    assert flat["sharpe"]["value"] is None


def test_days_add_up_to_what_an_account_nets_however_many_symbols_there_are(
    recorded: Examined,
) -> None:
    for own in recorded.report["policies"].values():
        net = own["overall"]["net_pnl"]["value"]
        assert sum(own["daily"]["net"]) == pytest.approx(net, abs=0.01)
        assert sum(own["returns_histogram"]["counts"]) == pytest.approx(len(own["daily"]["net"]))
        worst, mean = (own["overall"][f"{name}_drawdown"]["value"] for name in ("worst", "max"))
        assert worst >= mean >= 0


def test_only_recorded_bars_have_symbols_and_days(simulated: Examined, recorded: Examined) -> None:
    own = recorded.report["policies"][GREEDY]
    assert list(own["symbols"]) == ["AAA", "BBB"]
    assert own["daily"]["labels"] == ["2025-03-10"] and len(own["daily"]["net"]) == 1
    assert recorded.report["unit"] == "account through 1 session"
    own = simulated.report["policies"][GREEDY]
    assert own["symbols"] == {} and own["daily"]["labels"] == []
    assert simulated.report["provenance"]["split"] is None


@pytest.mark.parametrize("at_once", [True, False])
def test_the_audit_has_the_episodes_that_were_counted(
    root: Path, settings: config.Config, checkpoint: Path, simulated: Examined,
    monkeypatch: pytest.MonkeyPatch, at_once: bool,
) -> None:  # fmt: skip
    """Whether they are taken as they are counted, or are too many and played again in pieces."""
    found = simulated
    if not at_once:
        monkeypatch.setattr(recording, "CHUNK_STEPS", 3 * settings.max_steps_in_episode)
        asked = Asked(episodes=EPISODES, out=root / "pieces", audited=EPISODES)
        found = examined(settings, checkpoint, asked)
    result = audit.verify(found.out / "audit", None)
    assert not result.twin and result.episodes == 2 * EPISODES
    rows = pd.concat(
        pd.read_parquet(path, columns=["policy", "episode", "net_pnl"])
        for path in sorted((found.out / "audit").glob("steps-*.parquet"))
    )
    for name in (GREEDY, SAMPLED):
        own = rows[rows["policy"] == name].groupby("episode")["net_pnl"].sum()
        counted = simulated.found.ledgers[name].totals("pnl/net")
        np.testing.assert_allclose(own.to_numpy(np.float64), counted, atol=0.01)


def test_an_evaluation_on_recorded_bars_joins_the_trials(
    settings: config.Config, recorded: Examined
) -> None:
    (file,) = (Path(settings.runs_dir) / "track_records").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 2  # greedy and sampled
    for line, name in zip(lines, (GREEDY, SAMPLED), strict=True):
        assert line["labels"] == ["2025-03-10"]
        daily = recorded.found.ledgers[name].sums["pnl/net"].reshape(2, 2, 1).sum(axis=1)
        np.testing.assert_allclose(line["returns"], daily.mean(axis=0) / 100_000, atol=1e-12)
    assert recorded.report["provenance"]["trials"] == 2


def test_looking_at_the_test_split_is_counted_and_told(
    settings: config.Config, simulated: Examined, recorded: Examined
) -> None:
    events = [line["event"] for line in registry.read(Path(settings.runs_dir))]
    assert events == ["opened test split"]
    assert recorded.report["provenance"]["test_openings"] == 1


def test_a_doctored_step_fails_the_examination(
    root: Path, settings: config.Config, checkpoint: Path, simulated: Examined,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A dollar of costs is left out of one step of what is recorded."""
    until = recording.until

    def doctored(played: recording.Played, starts: Starts) -> recording.Played:
        found = until(played, starts)
        less = found.record.cost_fees.at[0, 3].add(1.0)
        record = dataclasses.replace(found.record, cost_fees=less)
        return dataclasses.replace(found, record=record)

    monkeypatch.setattr(recording, "until", doctored)
    found = examined(settings, checkpoint, Asked(episodes=EPISODES, out=root / "doctored"))
    assert not found.agrees
    assert found.report["replay"]["disagreements"] > 0
    assert "cost_fees" in found.said


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """Exit status, output and errors of `python -m jules_jax.evaluate argv`, in this process."""
    before, status = sys.argv, 0
    sys.argv = ["jules_jax.evaluate", *map(str, argv)]
    try:
        runpy.run_module("jules_jax.evaluate", run_name="__main__")
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(("agrees", "status"), [(True, 0), (False, 1)])
def test_the_exit_status_is_the_twins(
    agrees: bool, status: int, checkpoint: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked: list[Asked] = []

    def examine(settings: config.Config, path: Path, params: Any, of: Asked, say: Any) -> bool:
        asked.append(of)
        return agrees

    monkeypatch.setattr(examination, "examine", examine)
    found, out, _ = run(
        capsys, "--checkpoint", checkpoint, "--episodes", 3, "--replay-all", "--stress"
    )
    assert found == status and "checkpoint  " in out
    assert asked == [Asked(episodes=3, replay_all=True, extras=("stress",))]


REFUSED = {
    "no checkpoint": ((), "--checkpoint is missing"),
    "no such directory": (("--checkpoint", "nowhere"), "nowhere: no such checkpoint directory"),
    "a split of simulated paths": (("CHECKPOINT", "--split", "test"), "--split does not go"),
    "draws of simulated paths": (("CHECKPOINT", "--seeds", "5"), "--seeds does not go with simul"),
    "episodes of bars": (("CHECKPOINT", "--data", "BARS", "--episodes", "5"),
                         "--episodes does not go with recorded bars"),
    "weights of nothing": (("CHECKPOINT", "--init-from", "x"), "--init-from does not go with"),
    "a split that is none": (("CHECKPOINT", "--split", "train"), "expected validation or test"),
    "an audit without a place": (("CHECKPOINT", "--audit", "3"), "--audit needs --out"),
    "half an episode": (("CHECKPOINT", "--audit", "1.5", "--out", "x"), "--audit is '1.5'"),
    "another architecture": (("CHECKPOINT", "--lstm-hidden-size", "16"), "lstm_hidden_size is 8"),
    "no such file": (("CHECKPOINT", "--data", "nowhere.csv"), "nowhere.csv"),
    "other columns": (("CHECKPOINT", "--data", "OTHER"), "close"),
    "an unknown symbol": (("CHECKPOINT", "--data", "BARS", "--symbols", "ZZZ"),
                          "ZZZ: no such file; --symbols takes a YAML file"),
    "an empty split": (("CHECKPOINT", "--data", "BARS", "--validation-from", "2026-01-02",
                        "--test-from", "2026-01-05",
                        "--split", "test"), "test split"),
}  # fmt: skip


@pytest.mark.parametrize(("flags", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_ends_in_one_sentence(
    flags: tuple[str, ...], words: str, checkpoint: Path, bars: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "other.csv").write_text("when,what\n2025-03-03,1\n")
    named = {"BARS": str(bars), "OTHER": str(tmp_path / "other.csv")}
    argv = [named.get(flag, flag) for flag in flags]
    if "CHECKPOINT" in argv:
        argv[:1] = ["--checkpoint", str(checkpoint)]
    status, _, err = run(capsys, *argv)
    assert status == 2
    assert err.startswith("error: ") and words in err
    assert len(err.strip().splitlines()) == 1


def test_a_place_that_cannot_be_written_or_has_an_audit_is_refused_before_anything_is_played(
    settings: config.Config, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "used" / "audit").mkdir(parents=True)
    monkeypatch.setattr(assessment, "assess", None)
    params = checkpoints.load_params(checkpoints.find(checkpoint), settings)
    for asked, words in (
        (Asked(out=tmp_path / "file" / "deep"), "cannot be written"),
        (Asked(out=tmp_path / "used", audited=1), "exists already"),
    ):
        with pytest.raises(InputError, match=words):
            examination.examine(settings, checkpoint, params, asked, print)


@pytest.mark.long
@pytest.mark.parametrize("market", ["simulated", "recorded"])
def test_scenarios_are_played_told_and_written(
    root: Path, settings: config.Config, checkpoint: Path, bars: Path,
    monkeypatch: pytest.MonkeyPatch, market: str,
) -> None:  # fmt: skip
    """The same episodes in each: what is unchanged in two of them nets the same in both."""
    monkeypatch.setattr(scenarios, "EPISODES", EPISODES)
    contenders = robustness.contenders
    monkeypatch.setattr(
        robustness, "contenders", lambda *of: [one for one in contenders(*of) if one.name in FEW]
    )
    own = on_bars(settings, bars) if market == "recorded" else settings
    extras = ("stress", "capacity", "sensitivity")
    asked = Asked(episodes=EPISODES, draws=1, out=root / f"scenarios-{market}", extras=extras)
    found = examined(own, checkpoint, asked)
    report = found.report
    schema.check(report)
    assert report["scenario_unit"]
    for kind in extras:
        assert {row["policy"] for row in report[kind]} == set(FEW)
        assert all(row["net_pnl"]["value"] == 0 for row in report[kind] if row["policy"] == "flat")
    (usual,) = (
        row["net_pnl"]
        for row in report["stress"]
        if row["policy"] == GREEDY and row["scenario"] == "as it is"
    )
    of_impact = [row for row in report["sensitivity"] if row["parameter"] == "impact, ×"]
    (same,) = (row["net_pnl"] for row in of_impact if row["policy"] == GREEDY and row["value"] == 1)
    assert usual == pytest.approx(same, abs=0.01)
    assert "flash crash" in found.said and "cooldown, bars" in found.said
