import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jules_jax import config
from jules_jax.agent import lstm, network, ppo
from jules_jax.agent.learner import Learner, groups_for
from jules_jax.errors import InputError
from tests.agent import toy_envs
from tests.agent.collectives import collectives

FLOAT32 = 4
SETTINGS = config.Config(
    num_envs=32,
    total_timesteps=100_000,
    max_steps_in_episode=10,
    network=config.Network(lstm_hidden_size=6, net_arch=(8,)),
    ppo=config.PPO(n_steps=8, n_epochs=3, num_minibatches=2, learning_rate=0.003),
)


@dataclasses.dataclass
class Run:
    """Three updates from one seed: the learner, all states but the last on the host, metrics."""

    learner: Learner
    env: toy_envs.Walk
    states: list
    metrics: list
    compilations: list


@pytest.fixture(scope="module")
def train():
    """Train three updates on a number of devices, from a seed; learners are compiled once."""
    learners = {}

    def run(num_devices=1, seed=0):
        if num_devices not in learners:
            env = toy_envs.StaggeredWalk()
            devices = jax.devices()[:num_devices]
            learners[num_devices] = (Learner(env, SETTINGS, devices=devices), env)
        learner, env = learners[num_devices]
        compilations = []

        def listen(event, duration, **_):
            if event.endswith("backend_compile_duration"):
                compilations[-1] += 1

        env_params = learner.replicate(toy_envs.params(10, 0.1))
        state = learner.init(jax.random.key(seed), env_params)
        states, metrics = [to_host(state)], []
        jax.monitoring.register_event_duration_secs_listener(listen)
        for _ in range(3):
            compilations.append(0)
            state, scalars = learner.update(state, env_params)
            jax.block_until_ready(state)
            states.append(to_host(state))
            metrics.append({name: float(value) for name, value in scalars.items()})
        jax.monitoring.unregister_event_duration_listener(listen)
        return Run(learner, env, states, metrics, compilations)

    return run


def to_host(state):
    return jax.tree.map(np.asarray, dataclasses.replace(state, key=jax.random.key_data(state.key)))


@pytest.fixture(scope="module")
def one_device(train):
    return train()


def differences(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return [np.abs(np.float64(x) - y).max() for x, y in pairs]


def test_the_first_minibatch_replays_the_rollout_through_resets(one_device):
    for scalars in one_device.metrics:
        assert scalars["train/ratio_deviation"] < 1e-5
    # The lanes did reset inside the sequences, and the policy did move between updates.
    assert one_device.metrics[-1]["rollout/episodes"] > SETTINGS.num_envs / 2
    assert one_device.metrics[-1]["train/approx_kl"] > 1e-6


def test_a_seed_gives_the_same_bits_twice_and_another_seed_others(train, one_device):
    again, other = train(seed=0), train(seed=1)
    assert max(differences(one_device.states[-1], again.states[-1])) == 0
    assert one_device.metrics == again.metrics
    assert max(differences(one_device.states[-1].params, other.states[-1].params)) > 0.01


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_any_number_of_devices_trains_the_same_agent(train, one_device, num_devices):
    if len(jax.devices()) < num_devices:
        pytest.skip(f"needs {num_devices} devices")
    many = train(num_devices)
    assert max(differences(one_device.states[-1], many.states[-1])) < 1e-5
    assert max(differences(one_device.states[-1].params, one_device.states[0].params)) > 0.01
    for ours, theirs in zip(one_device.metrics, many.metrics, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def test_devices_meet_once_a_minibatch_and_not_at_every_step_of_time(train):
    """Read from the compiled program: every all-reduce, its bytes and the loops around it."""
    if len(jax.devices()) < 4:
        pytest.skip("needs 4 devices")
    learner, ppo = train(4).learner, SETTINGS.ppo
    env_params = learner.replicate(toy_envs.params(10, 0.1))
    state = learner.init(jax.random.key(0), env_params)
    found = collectives(learner._update.lower(state, env_params, learner._ppo).compile().as_text())
    assert {each.kind for each in found} == {"all-reduce"}
    assert {each.groups for each in found} == {((0, 1, 2, 3),)}
    minibatches = (ppo.n_epochs * ppo.num_minibatches,)
    assert {each.loops for each in found} == {(), minibatches}

    sent = Counter()
    for each in found:
        sent[each.loops, each.reduction] += each.bytes // FLOAT32
    weights, losses, moments = network.num_parameters(state.params), 6, 2  # of the advantages
    assert sent == {
        (minibatches, "add"): weights + losses + moments,
        (minibatches, "maximum"): 1,  # of |ratio - 1|
        ((), "add"): 10,  # sums and moments of the rollout's rewards, episodes and targets
    }
    largest = max(found, key=lambda each: each.bytes)
    assert largest.bytes > 0.9 * FLOAT32 * weights  # together, not leaf by leaf


def test_the_first_step_of_adam_moves_every_weight_by_the_learning_rate():
    """Bias-corrected, Adam's first direction is g / (|g| + eps): of size 1, 0 without gradient."""
    once = dataclasses.replace(SETTINGS.ppo, n_epochs=1, num_minibatches=1, adam_eps=1e-12)
    settings = dataclasses.replace(SETTINGS, ppo=once)
    learner = Learner(toy_envs.StaggeredWalk(), settings, devices=jax.devices()[:1])
    env_params = toy_envs.params(10, 0.1)
    before = learner.init(jax.random.key(0), env_params)
    start = to_host(before).params
    after, _ = learner.update(before, env_params)
    moved = np.concatenate(
        [
            np.ravel(new - old)
            for new, old in zip(
                jax.tree.leaves(to_host(after).params), jax.tree.leaves(start), strict=True
            )
        ]
    )
    assert (moved != 0).mean() > 0.5
    np.testing.assert_allclose(np.abs(moved[moved != 0]), once.learning_rate, rtol=1e-3)


def test_updates_compile_once(one_device):
    first, *later = one_device.compilations
    assert first >= 1
    assert later == [0, 0]


def test_no_leaf_of_the_state_is_weakly_typed(one_device):
    env_params = toy_envs.params()
    shapes = jax.eval_shape(one_device.learner.init, jax.random.key(0), env_params)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(shapes))
    after, _ = jax.eval_shape(one_device.learner.update, shapes, env_params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), shapes) == jax.tree.map(
        lambda x: (x.shape, x.dtype, x.weak_type), after
    )


def test_metrics_have_the_names_of_stable_baselines3(one_device):
    scalars = one_device.metrics[0]
    train = "entropy_loss explained_variance clip_fraction approx_kl value_loss clip_range loss"
    train += " policy_gradient_loss learning_rate ent_coef ratio_deviation grad_norm"
    rollout = "ep_rew_sum ep_len_sum episodes reward_sum reward_var"
    expected = {f"train/{name}" for name in train.split()}
    assert scalars.keys() == expected | {f"rollout/{name}" for name in rollout.split()}
    assert scalars["train/entropy_loss"] == pytest.approx(-np.log(3), abs=0.01)
    assert scalars["train/clip_range"] == pytest.approx(0.3)
    assert scalars["train/learning_rate"] == pytest.approx(0.003)


def test_the_gradient_is_clipped_by_its_global_norm(one_device):
    """Clipping each entry or each leaf would change the gradient's direction."""
    rng = np.random.default_rng(0)
    params = one_device.states[0].params
    gradient = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params)
    norm = np.sqrt(
        sum(np.square(leaf, dtype=np.float64).sum() for leaf in jax.tree.leaves(gradient))
    )
    limit = SETTINGS.ppo.max_grad_norm
    assert norm > 2 * limit
    optimizer = ppo.optimizer(SETTINGS.ppo)
    _, state = jax.jit(lambda g: optimizer.update(g, optimizer.init(params)))(gradient)
    # Adam's first moment after one step is a tenth of the gradient it was given.
    jax.tree.map(
        lambda moment, leaf: np.testing.assert_allclose(
            moment, 0.1 * leaf * limit / norm, rtol=1e-5
        ),
        state[1].mu,
        gradient,
    )


def test_minibatches_cut_every_shuffle_group_and_use_each_lane_once_an_epoch(one_device):
    learner = one_device.learner
    lanes, groups, minibatches = 32, learner.shuffle_groups, 2
    assert groups == 8
    draw = jax.jit(
        jax.shard_map(
            learner._minibatches, mesh=learner.mesh, in_specs=jax.P(), out_specs=jax.P(None, "lane")
        )
    )
    order = np.asarray(draw(jax.random.key(3))).reshape(SETTINGS.ppo.n_epochs, minibatches, -1)
    for epoch in order:
        assert sorted(epoch.ravel()) == list(range(lanes))
        for minibatch in epoch:
            per_group = np.bincount(minibatch // (lanes // groups), minlength=groups)
            np.testing.assert_array_equal(per_group, lanes // groups // minibatches)
    assert (np.sort(order[0, 0]) != np.sort(order[1, 0])).any()


def with_ppo(**changes):
    return dataclasses.replace(SETTINGS, ppo=dataclasses.replace(SETTINGS.ppo, **changes))


def test_schedules_are_linear_in_the_share_of_training_or_constant():
    settings = config.PPO(learning_rate=1.0, learning_rate_end=0.2, ent_coef=0.03)
    rates = [ppo.at(settings, jnp.float32(share)).learning_rate for share in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(rates, [1.0, 0.6, 0.2], rtol=1e-6)
    assert ppo.at(settings, jnp.float32(1.0)).ent_coef == np.float32(0.03)
    to_zero = dataclasses.replace(settings, ent_coef_end=0.0)
    assert ppo.at(to_zero, jnp.float32(1.0)).ent_coef == 0


def test_the_share_of_training_counts_optimizer_steps(one_device):
    """An update has 3 epochs of 2 minibatches, and there are 391 updates in all."""
    assert SETTINGS.num_updates == 391  # 100,000 / (32 · 8) = 390.6
    settings = dataclasses.replace(SETTINGS.ppo, learning_rate_end=0.0, ent_coef_end=1.03)
    env_params = one_device.learner.replicate(toy_envs.params(10, 0.1))
    state = one_device.learner.init(jax.random.key(0), env_params)
    for update in range(3):
        state, scalars = one_device.learner.update(state, env_params, settings)
        share = 6 * update / (6 * 391 - 1)
        assert scalars["train/learning_rate"] == pytest.approx(0.003 * (1 - share), rel=1e-5)
        assert scalars["train/ent_coef"] == pytest.approx(0.03 + share, rel=1e-5)


@pytest.mark.parametrize(
    ("lanes", "minibatches", "groups"), [(32, 4, 8), (12, 1, 4), (12, 2, 2), (7, 1, 1)]
)
def test_the_default_shuffle_groups_divide_the_lanes_of_a_minibatch(lanes, minibatches, groups):
    settings = dataclasses.replace(with_ppo(num_minibatches=minibatches), num_envs=lanes)
    assert groups_for(settings, num_devices=1) == groups


@pytest.mark.parametrize(
    ("changes", "num_devices", "message"),
    [
        ({"num_minibatches": 5}, 1, "expected a multiple of ppo.num_minibatches, 5"),
        ({"shuffle_groups": 3}, 1, "ppo.shuffle_groups is 3, expected a divisor"),
        ({"shuffle_groups": 2}, 4, "4 devices do not divide the 2 shuffle groups"),
        ({}, 3, "3 devices do not divide the 8 shuffle groups"),
        ({"n_steps": 11}, 1, "ppo.n_steps is 11, expected at most max_steps_in_episode, 10"),
    ],
)
def test_settings_that_do_not_divide_are_one_clear_error(changes, num_devices, message):
    with pytest.raises(InputError) as error:
        groups_for(with_ppo(**changes), num_devices)
    assert message in str(error.value)


def test_no_lanes_or_too_many_devices_are_errors():
    with pytest.raises(InputError, match="num_envs by default is 0"):
        groups_for(dataclasses.replace(SETTINGS, num_envs=0), 1)
    with pytest.raises(InputError, match="devices: found 4096, expected 0"):
        Learner(toy_envs.Walk(), dataclasses.replace(SETTINGS, devices=4096))


DELAY = 3


def episode_return_after_training():
    settings = dataclasses.replace(
        SETTINGS,
        num_envs=64,
        max_steps_in_episode=DELAY + 1,
        network=config.Network(lstm_hidden_size=12, net_arch=(12,)),
        ppo=config.PPO(
            n_steps=DELAY + 1, n_epochs=4, num_minibatches=2, learning_rate=0.02, ent_coef=0.0
        ),
    )
    learner = Learner(toy_envs.Cue(DELAY), settings, devices=jax.devices()[:1])
    state = learner.init(jax.random.key(0), toy_envs.params())
    returns = []
    for _ in range(40):
        state, scalars = learner.update(state, toy_envs.params())
        returns.append(scalars["rollout/ep_rew_sum"] / scalars["rollout/episodes"])
    return float(np.mean(returns[-10:]))


def test_the_lstm_solves_a_memory_task():
    assert episode_return_after_training() > 0.95


def test_the_same_network_with_its_carry_zeroed_each_step_does_not(monkeypatch):
    step, sequence = lstm.step, lstm.sequence
    forget = jnp.ones_like
    monkeypatch.setattr(lstm, "step", lambda p, c, x, first: step(p, c, x, forget(first)))
    monkeypatch.setattr(lstm, "sequence", lambda p, c, x, first: sequence(p, c, x, forget(first)))
    assert abs(episode_return_after_training()) < 0.2
