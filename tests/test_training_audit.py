"""The audit of a training run: right to the twin, whole over resumptions, free when not asked."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from jules_jax import config
from jules_jax.agent import network
from jules_jax.agent.learner import Learner
from jules_jax.env.episodes import Episodes
from jules_jax.env.params import make_params
from jules_jax.errors import InputError, Stopped
from jules_jax.evaluation import audit
from jules_jax.training import auditing, loop, market
from tests.tiny import SETTINGS, write_bars

pytestmark = pytest.mark.usefixtures("quick_compilation")

UPDATES, LANES = 8, 3
RUN = {
    "total_timesteps": str(UPDATES * 128),
    "checkpoints.every": "3",
    "name": "x",
    "monitor.audit": str(LANES),
    "trade_cooldown_steps": "2",
    "soft_dd_pct": "0.001",
    "hard_dd_pct": "0.002",
}
MOVING = {
    "schedules": "{fills.bid_ask_spread_bps: {linear: [1, 20]}, fills.permanent_share: {linear: "
    "[0.1, 0.6]}, safeguards.soft_dd_pct: {linear: [0.0005, 0.0015]}}",
    "randomise": "{fills.fee_bps: [0.1, 9], account.borrow_rate: [0, 5]}",
}


def run(root: Path, say=lambda text: None, resume: bool = False, **values: str) -> Path:
    """Trains; the run's directory."""
    places = {"runs_dir": str(root / "runs"), "checkpoint_dir": str(root / "checkpoints")}
    loop.train(config.load({**SETTINGS, **RUN, **places, **values}), say=say, resume=resume)
    return root / "runs" / "x"


def steps_of(run_dir: Path) -> pd.DataFrame:
    return pd.read_parquet(sorted((run_dir / "audit").glob("steps-*.parquet")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("whole"), **MOVING)


def test_what_moves_and_what_is_drawn_is_re_derived_by_the_twin(whole):
    found = audit.verify(whole / "audit")
    assert found.clean, audit.report(found)
    assert found.steps == UPDATES * 16 * LANES
    assert "weights change" in found.skipped["checkpoint"]
    steps = steps_of(whole)
    assert (steps.quantity != 0).sum() > 20
    assert sorted(steps.progress.unique()) == pytest.approx(np.arange(UPDATES) / (UPDATES - 1))
    beginnings = pq.read_table(whole / "audit" / "episodes-00000.parquet").to_pandas()
    assert beginnings.number_fills_fee_bps.between(0.1, 9).all()
    assert beginnings.number_fills_fee_bps.nunique() == len(beginnings)
    assert beginnings.start_time.iloc[:LANES].max() > 0, "lanes were to begin at several clocks"


def test_episodes_go_on_over_updates_and_follow_one_another(whole):
    steps = steps_of(whole)
    lengths = steps.groupby("episode").step.agg(["size", "max"])
    assert (lengths["size"] == lengths["max"] + 1).all()
    assert lengths["size"].max() == 32, "an episode was to last two updates"
    assert sorted(lengths.index) == list(range(len(lengths)))


def test_logits_and_value_are_those_that_the_policy_acted_on(whole):
    """The first update acts with the weights that a run of this seed begins with."""
    settings = config.load({**SETTINGS, **RUN, **MOVING})
    trading = market.Market(settings)
    params = make_params(settings, trading.data, progress=0.0, randomise=True)
    learner = Learner(Episodes(), settings)
    state = learner.init(jax.random.fold_in(jax.random.key(0), 1), params)
    steps = steps_of(whole)
    one = steps[(steps.episode == 0) & (steps.progress == 0)]
    seen = one[[name for name in one if name.startswith("observed_")]].to_numpy()[:, None]
    first = np.arange(len(one))[:, None] == 0
    carry = network.initial_carry(state.params, 1)
    _, logits, value = network.apply_sequence(state.params, carry, seen, first)
    expected = one[["logit_sell", "logit_hold", "logit_buy"]].to_numpy()
    np.testing.assert_allclose(logits[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(value[:, 0], one.value.to_numpy(), atol=1e-6)


def test_a_run_that_was_stopped_goes_on_with_its_trail_bit_for_bit(whole, tmp_path):
    def say(text: str, said: list[str] = []) -> None:  # noqa: B006
        said.append(text)
        if text.startswith("update 1 "):
            os.kill(os.getpid(), signal.SIGTERM)
            while not any("SIGTERM" in line for line in said):
                pass

    with pytest.raises(Stopped):
        run(tmp_path, say, **MOVING)
    directory = tmp_path / "runs" / "x" / "audit"
    found = audit.verify(directory)
    assert found.clean and "was stopped" in audit.report(found)
    (directory / "steps-00077.parquet.partial").write_text("left by a run that was killed")
    run(tmp_path, resume=True, **MOVING)
    assert audit.verify(directory).clean
    assert not list(directory.glob("*.partial"))
    ours, theirs = (
        steps_of(each).drop(columns="row_hash") for each in (tmp_path / "runs" / "x", whole)
    )  # hashes begin with the config, which says where the run is
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def test_an_edited_row_is_named(whole, tmp_path):
    from tests.evaluation import audited

    own = audited.copy(whole / "audit", tmp_path / "audit")
    path = own / "steps-00001.parquet"
    audited.rewrite(path, lambda rows: audited.with_cell(rows, "equity", 7, lambda v: v * 1.01))
    steps = pq.read_table(path)
    named = f"steps-00001.parquet row 7 (in training, episode {steps['episode'][7]}"
    found = audit.verify(own)
    assert [named in sentence for sentence in found.chain] == [True]
    assert "column equity" in found.twin[0]


def test_bars_of_a_file_keep_their_times(tmp_path):
    path = write_bars(tmp_path / "ABC.csv", sessions=12, bars=60)
    bars = pd.read_csv(path)
    data = {"market.data": str(path), "market.timezone": "UTC", "market.calendar": "regular"}
    data |= {"market.session_open": "09:30", "market.session_close": "10:30"}
    steps = steps_of(run(tmp_path, **data))
    assert set(steps.symbol_name) == {"ABC"}
    times = pd.to_datetime(bars.datetime).to_numpy().astype("datetime64[ns]").astype(np.int64)
    close = dict(zip(times.tolist(), bars.close, strict=True))
    expected = [close[stamp] for stamp in steps.timestamp_ns.tolist()]
    np.testing.assert_allclose(steps.mark_price, expected, rtol=1e-6)
    assert audit.verify(tmp_path / "runs" / "x" / "audit").clean


@pytest.mark.long
def test_lanes_of_several_devices_are_those_of_one(whole, tmp_path):
    many = steps_of(run(tmp_path, **MOVING, devices="2", **{"monitor.audit": "0.75"}))
    assert audit.verify(tmp_path / "runs" / "x" / "audit").clean
    names = ["episode", "step", "row", "request"]

    def of_first_update(steps: pd.DataFrame) -> Any:
        return steps[(steps.progress == 0)].drop_duplicates("row")[names].to_numpy().tolist()

    beginnings = pq.read_table(tmp_path / "runs/x/audit/episodes-00000.parquet").to_pandas()
    assert sorted(beginnings.lane.unique()) == list(range(6))
    ours, theirs = of_first_update(many), of_first_update(steps_of(whole))
    assert [row[1:] for row in theirs] == [row[1:] for row in ours][: len(theirs)]


def test_without_an_audit_the_program_is_the_one_it_was():
    settings = config.load(SETTINGS)
    params = make_params(settings, market.Market(settings).data, progress=0.0, randomise=True)

    def program(**options: Any) -> str:
        learner = Learner(Episodes(), settings, **options)
        state = jax.eval_shape(learner.init, jax.random.key(0), params)
        return str(jax.make_jaxpr(learner.update)(state, params))

    plain = program()
    assert program(watch=auditing.watch, watched=0) == plain
    assert program(watch=auditing.watch, watched=1) != plain


def test_an_audit_of_a_population_is_refused():
    with pytest.raises(InputError, match=r"monitor\.audit is 4 and there are several agents"):
        config.load({**SETTINGS, "monitor.audit": "4", "num_seeds": "2"})
