"""What a run logs is what happened: its episode sums against a replay that keeps every record."""

from __future__ import annotations

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from jules_jax import config
from jules_jax.agent import network
from jules_jax.env.record import Outcome
from jules_jax.training import dashboard, figures, loop, monitor, preparation
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("quick_compilation")

UPDATES = 6
ROUGH = {
    # short tempers and tight limits, so that every safeguard acts and every cost is paid
    "simulator.preset": "stress",
    "total_timesteps": UPDATES * 128,
    "figure_episodes": 4,
    "position_size_pct": 0.9,
    "trade_cooldown_steps": 2,
    "soft_dd_pct": 0.0005,
    "hard_dd_pct": 0.004,
    "purgatory_escape_threshold_pct": 0.0005,
    "early_warning_excess": 0.0001,
    "early_warning_steps": 2,
}


@partial(jax.jit, static_argnums=0)
def step(env, params, weights, key, t, at):
    """One step of all lanes: where they are then, `[N]` records, and which episodes ended."""
    env_state, carry, obs, first = at
    carry, logits, _ = network.apply_step(weights, carry, obs, first)
    lane_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    keys = lane_keys(jax.random.fold_in(key, t), jnp.arange(len(obs)))
    pairs = jax.vmap(jax.random.split)(keys)
    action = jax.vmap(jax.random.categorical)(pairs[:, 0], logits)
    stepped = jax.vmap(env.step, in_axes=(0, 0, 0, None))(pairs[:, 1], env_state, action, params)
    obs, env_state, _, terminated, truncated, info = stepped
    return (env_state, carry, obs, terminated | truncated), info["record"]


def records(learner, state, params):
    """Every record of the update that `state` begins, as its draws are specified: `[N]`, T times,
    each with the episodes that it ended."""
    key, _ = jax.random.split(jax.random.fold_in(state.key, state.update))
    lanes, kept = state.lanes, []
    at = (lanes.env_state, lanes.carry, lanes.obs, lanes.first)
    for t in range(learner.settings.ppo.n_steps):
        at, record = step(learner.env, params, state.params, key, t, at)
        kept.append((jax.tree.map(np.asarray, record), np.asarray(at[-1])))
    return kept


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's directory, with a window of one episode; of every update the records, in lists, of
    the whole episodes that ended in it, and its histogram of their rewards."""
    patch = pytest.MonkeyPatch()
    patch.setattr(monitor, "EPISODE_WINDOW", 1)
    directory = tmp_path_factory.mktemp("run")
    prepared = preparation.prepare(config.load(SETTINGS | ROUGH), lambda text: None)
    learner, params, state = prepared.learner, prepared.params, prepared.state
    lanes = prepared.settings.num_envs
    running, whole, seen, counts = [[] for _ in range(lanes)], np.zeros(lanes, bool), [], []
    with monitor.Monitor(directory, prepared.settings) as log:
        for update in range(1, UPDATES + 1):
            ended_now = []
            for record, ended in records(learner, state, params):
                for lane in range(lanes):
                    running[lane].append(jax.tree.map(lambda leaf, n=lane: leaf[n], record))
                    if ended[lane]:
                        ended_now += [running[lane]] if whole[lane] else []
                        running[lane], whole[lane] = [], True
            seen.append(ended_now)
            state, metrics, _ = loop._update(learner, state, params, (), None)
            counts.append(np.asarray(metrics["histogram/ep_rew"]))
            log.log(update, loop._fetch(metrics))
        log.draw(UPDATES, state.params, [], prepared.market.data, 0.0)
    patch.undo()
    return directory, seen, counts


@pytest.fixture(scope="module")
def told_and_seen(run):
    """Rows of `metrics.jsonl`, and the records of the episodes that ended in each."""
    directory, seen, _ = run
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], seen


def field(episodes, name):
    """A field of all records of episodes, float64."""
    return np.array([getattr(record, name) for steps in episodes for record in steps], np.float64)


SUMS = {
    "rollout/ep_rew_mean": lambda e: field(e, "reward").sum(),
    "rollout/ep_len_mean": lambda e: len(field(e, "reward")),
    "pnl/net": lambda e: field(e, "net_pnl").sum(),
    "reward/equity_change": lambda e: field(e, "reward_equity_change").sum(),
    "reward/action_change": lambda e: field(e, "reward_action_change").sum(),
    "reward/drawdown": lambda e: field(e, "reward_drawdown").sum(),
    "risk/hard_breaches": lambda e: field(e, "hard_breach").sum(),
    "risk/purgatory_entries": lambda e: field(e, "purgatory_entered").sum(),
    "risk/escapes": lambda e: field(e, "escaped").sum(),
    "risk/early_warnings": lambda e: field(e, "early_warning").sum(),
    "risk/drawdown_max": lambda e: sum(field([steps], "drawdown").max() for steps in e),
    "trade/cooldown_blocked": lambda e: (field(e, "outcome") == Outcome.COOLDOWN).sum(),
    "trade/rejected": lambda e: np.isin(field(e, "outcome"), (7, 8, 9, 10)).sum(),
    "trade/chains": lambda e: (field(e, "alternation") * (field(e, "chain") == 1)).sum(),
    "trade/trades_per_episode": lambda e: (
        (field(e, "quantity") != 0).sum() + (field(e, "close_quantity") != 0).sum()
    ),
    "trade/turnover": lambda e: turnover(e),
}


def turnover(episodes):
    opened = np.abs(field(episodes, "quantity")) * field(episodes, "reference_price")
    closed = np.abs(field(episodes, "close_quantity")) * field(episodes, "mark_price")
    return ((opened + closed) * field(episodes, "quantity_step")).sum()


@pytest.mark.parametrize("name", SUMS)
def test_sums_over_the_logs_are_sums_over_the_records(told_and_seen, name):
    rows, seen = told_and_seen
    logged = sum(row[name] * row["rollout/episodes"] for row in rows if row["rollout/episodes"])
    happened = sum(SUMS[name](episodes) for episodes in seen if episodes)
    assert logged == pytest.approx(happened, rel=2e-5, abs=1e-6)
    assert happened != 0, "the market is rough enough for the test to say something"


def test_no_episode_is_lost_between_updates(told_and_seen):
    """Episodes of 32 steps and updates of 16: every one of them spans two updates or more."""
    rows, seen = told_and_seen
    assert [row["rollout/episodes"] for row in rows] == [len(episodes) for episodes in seen]
    assert sum(map(len, seen)) > 8
    assert {len(steps) for episodes in seen for steps in episodes} == {32}


def test_nothing_is_told_of_episodes_before_one_has_ended(told_and_seen):
    rows, seen = told_and_seen
    first = next(place for place, episodes in enumerate(seen) if episodes)
    assert first > 0
    of_episodes = {name for name in rows[-1] if name in SUMS or name.startswith("cost/")}
    for row in rows[:first]:
        assert not of_episodes & set(row)
        assert row["rollout/episodes"] == 0
    assert of_episodes <= set(rows[first])


def test_rates_and_basis_points_are_those_of_the_records(told_and_seen):
    rows, seen = told_and_seen
    for row, episodes in zip(rows, seen, strict=True):
        if not episodes:
            continue
        traded = turnover(episodes)
        for part in ("spread", "temporary", "transient", "permanent", "fees", "borrow"):
            points = 1e4 * field(episodes, f"cost_{part}").sum() / traded
            assert row[f"cost/{part}_bp"] == pytest.approx(points, rel=1e-4, abs=1e-6)
        assert row["cost/spread_bp"] == pytest.approx(2.5, abs=0.05), "half of five"
        assert row["risk/drawdown_mean"] == pytest.approx(field(episodes, "drawdown").mean())
        beyond = (field(episodes, "soft_breach_run") > 0).mean()
        assert row["risk/soft_breach_rate"] == pytest.approx(beyond)
        entered = (field(episodes, "position_before") == 0) & (field(episodes, "quantity") != 0)
        held = (field(episodes, "position") != 0).sum() / entered.sum()
        assert row["trade/holding_bars"] == pytest.approx(held)


def test_what_is_told_of_steps_is_told_from_the_first_update_on(told_and_seen):
    rows, _ = told_and_seen
    for row in rows:
        assert row["action/sell"] + row["action/hold"] + row["action/buy"] == pytest.approx(1)
        assert row["risk/drawdown_weight"] == pytest.approx(1500.0), "progress is 0 throughout"


def test_the_histogram_of_rewards_counts_every_episode_where_it_belongs(run):
    _, seen, counts = run
    edges = np.float32([-np.inf, *dashboard.RETURN_EDGES, np.inf])
    assert sum(count.sum() for count in counts) == sum(map(len, seen))
    for episodes, count in zip(seen, counts, strict=True):
        rewards = [field([steps], "reward").sum() for steps in episodes]
        np.testing.assert_array_equal(count, np.histogram(rewards, edges)[0])


def events(directory):
    """Values of a run's TensorBoard file, in order, with their steps."""
    data, offset = next(directory.glob("events.out.tfevents*")).read_bytes(), 0
    while offset < len(data):  # a record: length, its checksum, the event, its checksum
        length = int.from_bytes(data[offset : offset + 8], "little")
        event = Event.FromString(data[offset + 12 : offset + 12 + length])
        offset += length + 16
        yield from ((value, event.step) for value in event.summary.value)


def test_tensorboard_is_told_how_to_group_charts_that_all_have_their_scalars(run):
    directory, *_ = run
    found = list(events(directory))
    layouts = [value for value, _ in found if "custom_scalars" in value.tag]
    assert len(layouts) == 1
    scalars = {value.tag for value, _ in found if value.HasField("simple_value")}
    charts = [chart for group in dashboard.LAYOUT.values() for chart in group.values()]
    assert {tag for chart in charts for tag in chart} <= scalars


def test_tensorboard_has_histograms_of_actions_and_returns(run):
    directory, seen, _ = run
    found = [(value.tag, value.histo, step) for value, step in events(directory)]
    actions = [histo for tag, histo, _ in found if tag == "histogram/action"]
    assert [sum(histo.bucket) for histo in actions] == [128] * UPDATES
    returns = {step // 128: histo for tag, histo, step in found if tag == "histogram/ep_rew"}
    assert {update: sum(histo.bucket) for update, histo in returns.items()} == {
        update: len(episodes) for update, episodes in enumerate(seen, start=1) if episodes
    }
    for update, histo in returns.items():
        rewards = [field([steps], "reward").sum() for steps in seen[update - 1]]
        assert histo.min <= max(rewards) and histo.max >= min(rewards)
        assert histo.bucket_limit[-1] >= max(rewards)


def test_figures_are_drawn_in_the_run_directory_and_in_tensorboard(run):
    directory, *_ = run
    names = {path.name for path in (directory / figures.DIRECTORY).iterdir()}
    assert names == {"equity-000006.png", "episode-000006.png"}
    images = {value.tag: value.image for value, _ in events(directory) if value.HasField("image")}
    assert set(images) == {"figures/equity", "figures/episode"}
    assert all(image.width > 500 and image.height > 300 for image in images.values())
