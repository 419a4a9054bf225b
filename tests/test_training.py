"""The training loop's market, monitor, registry and checkpoints."""

import dataclasses
import json
import threading
from collections import Counter
from functools import partial

import jax
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent import network
from jules_jax.errors import Diverged, InputError
from jules_jax.training import checkpoints, guard, loop, market, preparation, registry
from jules_jax.training.monitor import EpisodeWindow, progress_line
from tests.agent.collectives import collectives
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_a_generation_arrives_when_the_oldest_episode_has_ended():
    settings = config.load(SETTINGS)
    training_market = market.Market(settings)
    assert settings.refresh_updates * settings.ppo.n_steps >= settings.max_steps_in_episode
    refreshed = [update for update in range(7) if training_market.refresh(update)]
    assert refreshed == [2, 4, 6]
    assert training_market.generation == 3


def test_the_same_seed_brings_the_same_market():
    markets = [market.Market(config.load(SETTINGS | {"seed": seed})) for seed in (1, 1, 2)]
    rows = [np.asarray(each.data.rows) for each in markets]
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])


def test_episode_means_use_the_newest_hundred_episodes():
    window = EpisodeWindow()
    assert window.means() == {}
    window.add({"episodes": 0, "ep_rew": 0.0})
    assert window.means() == {}
    window.add({"episodes": 50, "ep_rew": 100.0})
    window.add({"episodes": 60, "ep_rew": 180.0})
    assert window.means()["ep_rew"] == pytest.approx(280 / 110)
    window.add({"episodes": 100, "ep_rew": 500.0})
    assert window.means()["ep_rew"] == pytest.approx(5.0)


def test_only_the_first_update_is_waited_for_before_the_next_is_dispatched(monkeypatch):
    events = []

    class Stub:
        """Learner, market, monitor, guard and the rest: notes what is asked of it, in order."""

        def update_watched(self, state, params, numbers):
            events.append(f"dispatch {state + 1}")
            return state + 1, {}, ()

        def log(self, update, metrics):
            events.append(f"log {update}")

        def hold(self, start):
            assert start.update == start.state + 1

        check = lambda self, update, metrics: events.append(f"check {update}")  # noqa: E731
        refresh = lambda self, update: False  # noqa: E731
        is_due = lambda self, update: update == 4  # noqa: E731
        validate = lambda self, state, members: {}  # noqa: E731
        keep = lambda self, state, members, validated: events.append(f"keep {state}")  # noqa: E731
        take = lambda self, update, progress, watched, params: None  # noqa: E731
        write = lambda self, taken: None  # noqa: E731
        wait = lambda self: None  # noqa: E731
        generation, asked = 0, None

    @dataclasses.dataclass
    class Params:
        progress: float = 0.0

    monkeypatch.setattr(guard, "magnitudes", lambda state, of_members: {})
    settings = config.load(SETTINGS)
    stub = Stub()
    prepared = preparation.Prepared(settings, stub, stub, Params(), 0, ())
    say = lambda text: events.append("say")  # noqa: E731
    state, _ = loop._updates(prepared, stub, stub, stub, stub, stub, None, say)
    assert state == 4
    assert " ".join(events) == (
        "keep 0 say dispatch 1 say log 1 check 1 dispatch 2 dispatch 3 log 2 check 2 "
        "dispatch 4 log 3 check 3 log 4 check 4 keep 4"
    )


def test_an_update_of_a_later_market_is_replayed_bit_for_bit(tmp_path, monkeypatch):
    """Update 3 is the first on the market's second generation; it is said to diverge."""
    calls, offending = [], guard.offending

    def third(metrics):
        calls.append(metrics)
        return ["train/loss"] if len(calls) == 3 else []

    monkeypatch.setattr(guard, "offending", third)
    places = {"runs_dir": str(tmp_path / "runs"), "checkpoint_dir": str(tmp_path / "checkpoints")}
    settings = config.load(SETTINGS | places | {"name": "x"})
    with pytest.raises(Diverged, match="update 3 of 4: train/loss is"):
        loop.train(settings, say=lambda text: None)
    monkeypatch.setattr(guard, "offending", offending)
    kept = tmp_path / "runs" / "x" / guard.DIRECTORY
    assert guard.load(kept).generation == 1
    assert "0 of them not finite: as recorded, bit for bit" in loop.replay(kept, settings)


def test_the_progress_line_shows_a_dash_before_the_first_episode_has_ended():
    scalars = {"time/fps": 1000.0, "train/entropy_loss": -1.0, "train/explained_variance": 0.1}
    line = progress_line(1, 40, 49_152, scalars)
    assert "ep_rew_mean    –" in line
    assert "31:57 to go" in line  # 39 × 49,152 steps at 1,000 a second
    assert "entropy 1.000" in line


def test_the_registry_keeps_every_line_of_many_writers(tmp_path):
    writers = [
        threading.Thread(target=registry.append, args=(tmp_path, "started", f"run {i}"))
        for i in range(20)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {line["run"] for line in registry.read(tmp_path)} == {f"run {i}" for i in range(20)}


def test_configs_with_another_value_have_another_hash():
    base = config.to_dict(config.load(SETTINGS))
    assert registry.config_hash(base) == registry.config_hash(json.loads(json.dumps(base)))
    other = config.to_dict(config.load(SETTINGS | {"gamma": 0.98}))
    assert registry.config_hash(base) != registry.config_hash(other)


def test_a_checkpoint_holds_the_whole_state_bit_for_bit(tmp_path, learner_state):
    import orbax.checkpoint as ocp

    settings, state = learner_state
    path = checkpoints.save(tmp_path / "run", state, generation=3, settings=settings)
    params = checkpoints.load_params(path, settings)
    jax.tree.map(np.testing.assert_array_equal, params, state.params)
    with ocp.CheckpointManager((tmp_path / "run").resolve()) as manager:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        restored = manager.restore(int(state.update), args=args)["state"]
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(restored), strict=True):
        if jax.dtypes.issubdtype(old.dtype, jax.dtypes.prng_key):
            old, new = jax.random.key_data(old), jax.random.key_data(new)
        np.testing.assert_array_equal(np.asarray(old), np.asarray(new))
    assert checkpoints.load_meta(path)["generation"] == 3


@pytest.fixture(scope="module")
def learner_state():
    """A tiny initial state with everything that training carries."""
    from jules_jax.agent.learner import Learner
    from jules_jax.env.params import make_params
    from jules_jax.env.trading_env import TradingEnv

    settings = config.load(SETTINGS)
    learner = Learner(TradingEnv(settings), settings)
    params = make_params(settings, learner.replicate(market.Market(settings).data))
    return settings, learner.init(jax.random.key(0), params)


@pytest.fixture(scope="module")
def updated():
    """Weights after two updates on the trading environment, twice on 1 device, once on 4."""
    from jules_jax.agent.learner import Learner
    from jules_jax.env.params import make_params
    from jules_jax.env.trading_env import TradingEnv

    settings = config.load(SETTINGS | {"num_envs": 16, "devices": 0})
    data = market.Market(settings).data

    def train(learner):
        params = make_params(settings, learner.replicate(data))
        state = learner.init(jax.random.key(3), params)
        for _ in range(2):
            state, metrics = learner.update(state, params)
        return jax.tree.map(np.asarray, (state.params, metrics))

    one = Learner(TradingEnv(settings), settings, devices=jax.devices()[:1])
    four = Learner(TradingEnv(settings), settings, devices=jax.devices()[:4])
    return train(one), train(one), train(four)


def test_the_same_seed_trains_the_same_weights_bit_for_bit(updated):
    once, again, _ = updated
    jax.tree.map(np.testing.assert_array_equal, once, again)


def test_devices_of_a_run_send_gradients_and_sums_and_nothing_else():
    """The program that trains, with all that is gathered of its steps, lanes audited, too."""
    settings = config.load(SETTINGS | {"devices": "2", "monitor.audit": "0.5"})
    prepared = preparation.prepare(settings, lambda text: None)
    found = collectives(prepared.learner._run_update.as_text())
    minibatches = (settings.ppo.n_epochs * settings.ppo.num_minibatches,)
    assert {each.kind for each in found} == {"all-reduce"}
    assert {each.loops for each in found} == {(), minibatches}
    sent = Counter()
    for each in found:
        sent[each.loops] += each.bytes // 4
    assert sent[minibatches] == network.num_parameters(prepared.state.params) + 8 + 1
    assert sent[()] < 500


def test_devices_change_only_rounding(updated):
    one, _, four = updated
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), one[0], four[0])


def test_the_first_minibatch_replays_the_rollout(updated):
    for _, metrics in updated:
        assert metrics["train/ratio_deviation"] < 1e-5


def test_weights_of_another_network_are_refused(tmp_path, learner_state):
    settings, state = learner_state
    path = checkpoints.save(tmp_path / "run", state, generation=0, settings=settings)
    wider = config.load(SETTINGS | {"lstm_hidden_size": 16})
    with pytest.raises(InputError, match="lstm_hidden_size is 8, and 16 was asked for"):
        checkpoints.load_params(path, wider)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match="no such checkpoint directory"):
        checkpoints.find(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no checkpoint found there"):
        checkpoints.find(tmp_path)


def test_the_default_network_has_the_parameters_of_the_design():
    shapes = jax.eval_shape(
        lambda key: network.init(key, config.Config().network), jax.random.key(0)
    )
    assert network.num_parameters(shapes) == 89_604
