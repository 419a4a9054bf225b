"""Populations of training: sweeps, who copies whom, and the leaderboard."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent.learner import Learner, TrainState
from jules_jax.env.params import make_params
from jules_jax.errors import Diverged, InputError
from jules_jax.training import checkpoints, loop, population, registry
from jules_jax.training.leaderboard import Leaderboard
from jules_jax.training.monitor import Monitor
from tests.agent import toy_envs
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def sweep(tmp_path):
    def members(text, **values):
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return population.members(config.load({"sweep": str(path), **values}))

    return members


def test_members_are_all_combinations_with_every_seed(sweep):
    found = sweep(
        "ppo.learning_rate: [1e-4, 5e-4]\nfills:\n  fee_bps: [0, 1]\n", num_seeds=2, seed=5
    )
    assert len(found) == 8
    assert [member.name for member in found[:3]] == [
        "learning_rate-1e-4_fee_bps-0_seed-5",
        "learning_rate-1e-4_fee_bps-0_seed-6",
        "learning_rate-1e-4_fee_bps-1_seed-5",
    ]
    last = found[-1].settings
    assert (last.ppo.learning_rate, last.fills.fee_bps, last.seed) == (5e-4, 1.0, 6)
    assert last.population == config.Population()


def test_without_a_sweep_members_differ_in_their_seed_only():
    first, second = population.members(config.load({"num_seeds": 2}))
    assert (first.name, second.name) == ("seed-0", "seed-1")
    assert config.to_dict(first.settings) == config.to_dict(config.Config())
    changed = {**config.to_dict(first.settings), "seed": 1}
    assert config.to_dict(second.settings) == changed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ppo.n_steps: [64, 128]", "ppo.n_steps .* line 1 must be the same for all agents"),
        ("num_envs: [64]", "num_envs .* must be the same"),
        ("account.initial_capital: [1e4, 1e5]", "must be the same"),
        ("ppo.gamma: 0.9", "ppo.gamma .* line 1 is one value, expected a list"),
        ("ppo.gamma: []", "is one value, expected a list"),
        ("ppo.gamma: [0.9, 1.1]", "ppo.gamma in .*sweep.yaml is 1.1, expected a number from 0"),
        ("ppo.gamma: [0.9, 0.9]", "a value comes twice"),
        ("gamma: [0.9]\nppo.gamma: [0.8]", "ppo.gamma .* line 2 is there twice"),
        ("ppo.gama: [0.9]", "the nearest valid key is 'ppo.gamma'"),
        ("- 1", "expected lists such as"),
        ("safeguards.soft_dd_pct: [0.03, 0.05]", "expected below safeguards.hard_dd_pct"),
    ],
)
def test_a_bad_sweep_is_told_in_a_sentence(sweep, text, message):
    with pytest.raises(InputError, match=message):
        sweep(text)


def test_exploiting_without_a_population_is_refused():
    with pytest.raises(InputError, match="exploit_every is 5 and there is one agent, expected"):
        config.load({"exploit_every": 5})


def test_sharing_out_devices_without_a_population_is_refused():
    with pytest.raises(InputError, match="member_devices is 2 and there is one agent, expected"):
        config.load({"member_devices": 2})


def test_a_member_alone_takes_no_more_devices_than_can_share_its_lanes():
    settings = config.load({"num_seeds": 2, "devices": 12, "num_envs": 64})  # 8 shuffle groups
    for member in population.members(settings):
        assert member.settings.devices == 4
        config.validate(member.settings)


def test_stacked_numbers_are_every_members_own(sweep):
    found = sweep("ppo.gamma: [0.9, 0.99]\nfills.fee_bps: [0, 1, 2]")
    np.testing.assert_allclose(
        population.of_learner(found).gamma, [0.9, 0.9, 0.9, 0.99, 0.99, 0.99]
    )
    params = jax.eval_shape(lambda: make_params(config.Config(), None))
    stacked = population.of_environment(params, found)
    np.testing.assert_allclose(stacked.fills.fee_bps, [0, 1, 2, 0, 1, 2])
    assert {leaf.shape for leaf in jax.tree.leaves(stacked.safeguards)} == {(6,)}
    assert stacked.progress.shape == ()


def test_the_worst_go_on_from_the_best_and_nobody_else_moves():
    scores = np.array([5.0, -np.inf, 3.0, 9.0, 1.0, 7.0, 2.0, 4.0])
    rng = np.random.default_rng(0)
    drawn = np.array([population.exploit(scores, 0.25, rng) for _ in range(200)])
    kept = [0, 1, 2, 3, 5, 7]  # 1 has no score yet
    np.testing.assert_array_equal(drawn[:, kept], np.broadcast_to(kept, (200, 6)))
    for replaced in (4, 6):
        assert set(drawn[:, replaced]) == {3, 5}
    np.testing.assert_array_equal(population.exploit(np.zeros(1), 0.5, rng), [0])
    nobody = np.full(4, -np.inf)
    np.testing.assert_array_equal(population.exploit(nobody, 0.5, rng), range(4))
    only_the_last = np.array([-np.inf, -np.inf, -np.inf, 1.0])
    np.testing.assert_array_equal(population.exploit(only_the_last, 0.5, rng), range(4))
    two = np.array([-np.inf, 2.0, 1.0, -np.inf])
    np.testing.assert_array_equal(population.exploit(two, 0.5, rng), [0, 1, 1, 3])
    assert set(population.exploit(np.array([1.0, 2.0]), 0.25, rng)) == {1}


def test_a_copy_explores_around_its_sources_numbers(sweep):
    text = "ppo.learning_rate: [1e-4, 5e-4]\nppo.gamma: [0.99]\nppo.ent_coef_end: [-1]"
    found, seen = sweep(text), set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        kept, copy = population.explore(found, np.array([0, 0]), 1.25, rng)
        assert kept == found[0]
        assert (copy.name, copy.settings.seed) == (found[1].name, found[1].settings.seed)
        ppo = copy.settings.ppo
        seen.add((round(ppo.learning_rate, 9), round(ppo.gamma, 9), ppo.ent_coef_end))
    expected = {(rate, gamma, -1.0) for rate in (8e-5, 1.25e-4) for gamma in (0.9875, 0.992)}
    assert seen == expected


def test_a_number_that_would_not_be_allowed_stays(sweep):
    found = sweep("account.position_size_pct: [0.5, 0.9]")
    drawn = [
        population.explore(found, np.array([1, 1]), 1.25, np.random.default_rng(seed))[0]
        for seed in range(20)
    ]
    sizes = {member.settings.account.position_size_pct for member in drawn}
    assert sorted(sizes) == pytest.approx([0.72, 0.9])  # 1.125 is more than all of the equity


def test_a_copy_is_scored_by_episodes_begun_after_it(tmp_path):
    settings = dataclasses.replace(
        config.Config(), num_envs=8, max_steps_in_episode=200, total_timesteps=8 * 128 * 100
    )
    raw = {"train/entropy_loss": -1.0, "train/explained_variance": 0.0, "rollout/episodes": 8.0}
    raw["rollout/reward_var"] = 1.0

    def metrics(nets):
        net = 8.0 * np.asarray(nets)
        sums = {"rollout/ep_rew_sum": net, "rollout/ep_len_sum": net, "episode_sum/pnl/net": net}
        return {name: np.full(2, value) for name, value in raw.items()} | sums

    with Monitor(tmp_path, settings, ["good", "bad"]) as monitor:
        for update in range(1, 31):
            monitor.log(update, metrics([100.0, -500.0]))
        np.testing.assert_allclose(monitor.scores(), [100.0, -500.0])
        monitor.copied(np.array([0, 0]))
        for update in (31, 32):  # an episode of 200 steps ends within two rollouts of 128
            monitor.log(update, metrics([100.0, -250.0]))
            assert monitor.scores()[1] == -np.inf
        assert "-500" not in monitor.leaderboard()
        monitor.log(33, metrics([100.0, 90.0]))
        np.testing.assert_allclose(monitor.scores(), [100.0, 90.0])


def scalars(net):
    return {"pnl/net": net, "rollout/ep_rew_mean": 1.5, "train/entropy_loss": -0.7}


def test_the_leaderboard_ranks_by_the_best_score_so_far():
    board = Leaderboard(["a", "b", "c"])
    board.add(1, [scalars(10.0), scalars(30.0), {}])
    board.add(2, [scalars(20.0), scalars(5.0), {}])
    board.copied("c", "a")
    np.testing.assert_array_equal(board.scores(), [20.0, 5.0, -np.inf])
    rows = [line.split() for line in board.table().splitlines()[2:]]
    assert rows == [
        ["b", "30.00", "1", "5.00", "1.50", "0.70"],
        ["a", "20.00", "2", "20.00", "1.50", "0.70"],
        ["c", "–", "0", "–", "–", "–", "a"],
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two spreads and two seeds each, 4 updates, after update 2 of which the worst copies."""
    root = tmp_path_factory.mktemp("population")
    (root / "sweep.yaml").write_text("fills.bid_ask_spread_bps: [0, 20]\n")
    places = {"runs_dir": str(root / "runs"), "checkpoint_dir": str(root / "checkpoints")}
    settings = config.load(
        {**SETTINGS, **places, "name": "pop", "num_seeds": 2, "sweep": str(root / "sweep.yaml")}
    )
    return root, settings, loop.train(settings, say=lambda text: None)


def test_every_member_has_its_curves_and_its_checkpoint(run):
    root, settings, result = run
    members = population.members(settings)
    for member in members:
        rows = [
            json.loads(line)
            for line in (root / "runs" / "pop" / member.name / "metrics.jsonl").open()
        ]
        assert [row["update"] for row in rows] == [1, 2, 3, 4]
        assert list((root / "runs" / "pop" / member.name).glob("events.out.tfevents.*"))
        saved = checkpoints.find(root / "checkpoints" / "pop" / member.name)
        spread = checkpoints.load_meta(saved)["config"]["fills"]["bid_ask_spread_bps"]
        assert spread == member.settings.fills.bid_ask_spread_bps
    assert result.checkpoint.parent.name in {member.name for member in members}
    table = (root / "runs" / "pop" / "leaderboard.txt").read_text()
    assert result.leaderboard + "\n" == table
    assert all(member.name in table for member in members)


@pytest.mark.parametrize("place", [0, 3])
def test_a_member_is_the_agent_that_its_config_trains_alone(run, tmp_path, place):
    """Seed 0 of a run meets the run's own market; of seed 1 only the market is another."""
    root, settings, _ = run
    member = population.members(settings)[place]
    places = {"runs_dir": str(tmp_path / "runs"), "checkpoint_dir": str(tmp_path / "checkpoints")}
    alone = config.load({**config.to_dict(member.settings), **places, "name": "alone"})
    curve = lambda path: [json.loads(line) for line in path.open()]  # noqa: E731
    together = curve(root / "runs" / "pop" / member.name / "metrics.jsonl")
    loop.train(alone, say=lambda text: None)
    expected = curve(tmp_path / "runs" / "alone" / "metrics.jsonl")
    same = member.settings.seed == settings.seed
    near = [
        np.isclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5)
        for ours, theirs in zip(together, expected, strict=True)
        for name in ("rollout/ep_rew_mean", "train/value_loss", "train/entropy_loss", "pnl/net")
        if name in ours or name in theirs
    ]
    assert len(near) >= 12
    assert all(near) == same


def test_a_populations_checkpoint_directory_names_its_members(run):
    root, _, _ = run
    directory = root / "checkpoints" / "pop"
    with pytest.raises(InputError, match="one of its members: bid_ask_spread_bps-0_seed-0, "):
        config.saved_with(str(directory))
    member = directory / "bid_ask_spread_bps-20_seed-1"
    assert config.saved_with(str(member)) == member / "config.yaml"


def test_a_copy_has_its_sources_weights_and_optimizer_and_its_own_lanes():
    weights = {"kernel": jnp.arange(4.0)[:, None] * jnp.ones((4, 3))}
    before = TrainState(weights, {"m": jnp.arange(4.0)}, *(jnp.arange(4) for _ in range(3)))
    after = population.copy_weights(before, np.array([0, 2, 2, 0]))
    np.testing.assert_array_equal(after.params["kernel"][:, 0], [0, 2, 2, 0])
    np.testing.assert_array_equal(after.opt_state["m"], [0, 2, 2, 0])
    for own in (after.lanes, after.key, after.update):
        np.testing.assert_array_equal(own, [0, 1, 2, 3])


def on_a_mesh(member_devices, devices):
    """A learner of four agents, so many of whose devices share them out, in a toy environment."""
    settings = config.Config(
        num_envs=8,
        max_steps_in_episode=10,
        network=config.Network(lstm_hidden_size=4, net_arch=(4,)),
        ppo=config.PPO(n_steps=4, n_epochs=1, num_minibatches=1),
        population=config.Population(num_seeds=4, member_devices=member_devices),
    )
    env = toy_envs.StaggeredWalk()
    return Learner(env, settings, members=4, devices=jax.devices()[:devices])


def test_a_population_on_a_mesh_is_copied_saved_and_goes_on_on_another(tmp_path):
    keys, env_params = jax.random.split(jax.random.key(0), 4), toy_envs.params()
    learner = on_a_mesh(2, 4)
    state, _ = learner.update(learner.init(keys, env_params), env_params)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    before = jax.tree.map(np.asarray, (state.params, state.opt_state, state.lanes.carry))
    state = population.copy_weights(state, np.array([0, 3, 2, 3]))
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings
    after = (state.params, state.opt_state, state.lanes.carry)
    for place, source in enumerate([0, 3, 2, 3]):
        weights = population.of_member(before[:2], source)
        jax.tree.map(np.testing.assert_array_equal, population.of_member(after[:2], place), weights)
    jax.tree.map(np.testing.assert_array_equal, after[2], before[2])

    path = checkpoints.save(tmp_path, state, generation=0, settings=learner.settings)
    expected, _ = learner.update(state, env_params)
    other = on_a_mesh(0, 2)
    found = checkpoints.restore(path, other.init(keys, env_params))
    assert found.lanes.obs.sharding.mesh.shape == {"member": 2, "lane": 1}
    found, _ = other.update(found, env_params)
    near = partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(near, found.params, expected.params)


def test_population_based_training_moves_the_copys_numbers(run, tmp_path):
    _, settings, _ = run
    places = {"runs_dir": str(tmp_path / "runs"), "checkpoint_dir": str(tmp_path / "checkpoints")}
    evolving = dataclasses.replace(
        settings.population, exploit_every=3
    )  # by then episodes have ended
    loop.train(dataclasses.replace(settings, population=evolving, **places), say=lambda text: None)
    found = {}
    for member in population.members(settings):
        saved = checkpoints.find(tmp_path / "checkpoints" / "pop" / member.name)
        costs = checkpoints.load_meta(saved)["config"]["fills"]
        found[member.name] = costs["bid_ask_spread_bps"]
    table = (tmp_path / "runs" / "pop" / "leaderboard.txt").read_text().splitlines()
    copied = [row.split() for row in table[2:] if len(row.split()) == 7]
    assert len(copied) == 1  # a quarter of four
    copy, source = copied[0][0], copied[0][-1]
    allowed = {0.0} if "bps-0" in source else {16.0, 25.0}
    assert round(found.pop(copy), 6) in allowed
    assert all(spread == (0.0 if "bps-0" in name else 20.0) for name, spread in found.items())


def test_a_member_that_diverges_stops_the_run_and_can_be_replayed(tmp_path):
    (tmp_path / "sweep.yaml").write_text("ppo.learning_rate: [1e-3, 1e30]\n")
    places = {"runs_dir": str(tmp_path / "runs"), "checkpoint_dir": str(tmp_path / "checkpoints")}
    given = {**SETTINGS, **places, "name": "pop", "sweep": str(tmp_path / "sweep.yaml")}
    settings = config.load(given)
    with pytest.raises(Diverged, match=r"\(member learning_rate-1e30_seed-0\).*--replay"):
        loop.train(settings, say=lambda text: None)
    events = [line["event"] for line in registry.read(tmp_path / "runs")]
    assert events == ["started", "diverged"]
    kept = tmp_path / "runs" / "pop" / "diverged"
    again = loop.replay(kept, settings, say=lambda text: None)
    assert "as recorded, bit for bit" in again and "not bit" not in again
    smaller = config.load({**given, "ppo.learning_rate": 1e-4})
    survived = loop.replay(kept, smaller, say=lambda text: None)
    assert "0 of them not finite: not bit for bit" in survived
