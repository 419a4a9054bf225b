"""Markets whose answer is known: that the answers are right, the verdicts, and learning in short.

`python -m benchmarks.known_answer` trains to the thresholds; the tests marked long repeat it.
"""

from __future__ import annotations

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.known_answer import (
    __main__ as command,
)
from benchmarks.known_answer import (
    cue,
    games,
    ladder,
    population,
    regime,
    report,
    reversion,
    trading,
)
from jules_jax import config
from jules_jax.agent import network
from jules_jax.evaluation.statistics import Interval

pytestmark = pytest.mark.usefixtures("quick_compilation")

EPISODES = 2000


def within_errors(found, expected, errors=4.0):
    found = np.asarray(found, np.float64)
    return abs(found.mean() - expected) < errors * found.std(ddof=1) / np.sqrt(len(found))


# The optimum


def test_backward_induction_finds_the_best_of_all_plans():
    """Three bars of a two-state chain: every plan, a position for each history, is tried."""
    rng = np.random.default_rng(0)
    edge, transition, cost = rng.normal(size=2), rng.dirichlet([1, 1], size=2), 0.4
    start, steps = 1, 3
    histories = [h for t in range(steps) for h in itertools.product((0, 1), repeat=t)]
    best = -np.inf
    for plan in itertools.product((-1, 0, 1), repeat=len(histories)):
        position_after = dict(zip(histories, plan, strict=True))
        net = 0.0
        for path in itertools.product((0, 1), repeat=steps - 1):
            states, held, earned, chance = (start, *path), 0, 0.0, 1.0
            for t, state in enumerate(states):
                target = position_after[path[:t]]
                earned += target * edge[state] - cost * abs(target - held)
                earned -= np.inf if abs(target - held) > 1 else 0.0
                held = target
                if t + 1 < steps:
                    chance *= transition[state, states[t + 1]]
            net += chance * earned
        best = max(best, net)
    assert ladder.solve(edge, transition, cost, steps).value[start, 1] == pytest.approx(best)


def test_without_costs_or_limits_the_optimum_is_the_mean_absolute_edge():
    params = reversion.params(cost=0.0)
    optimum, _ = reversion.optimum(params, reach=2)
    assert optimum == pytest.approx(int(params.steps) * np.sqrt(2 / np.pi), rel=1e-3)


@pytest.mark.parametrize(
    "value",
    [lambda n: reversion.optimum(reversion.params(), n)[0],
     lambda n: regime.attainable(regime.params(), n)[0]],
    ids=["reversion", "regime"],
)  # fmt: skip
def test_a_finer_grid_barely_moves_the_optimum(value):
    coarse, fine = value(101), value(201)
    assert 0 < coarse - fine < 5e-3 * fine


def test_the_filter_is_bayes_rule_over_all_histories():
    params = regime.params(dwell=5.0, noise=1.5)
    moves = np.random.default_rng(1).normal(size=6)
    up = 0.5
    for move in moves:
        up = regime.filtered(up, move, params)
    weight = {1.0: 0.0, -1.0: 0.0}
    for path in itertools.product((1.0, -1.0), repeat=len(moves) + 1):
        flips = sum(a != b for a, b in itertools.pairwise(path))
        likelihood = np.exp(-np.sum((moves - path[:-1]) ** 2) / (2 * 1.5**2))
        weight[path[-1]] += likelihood * 0.2**flips * 0.8 ** (len(moves) - flips)
    assert up == pytest.approx(weight[1.0] / sum(weight.values()), rel=1e-5)


def test_with_hardly_any_noise_the_filter_earns_what_knowing_the_last_regime_earns():
    params = regime.params(dwell=20.0, noise=0.25, cost=1.0, steps=64)
    flip = 1.0 / 20.0
    edge = np.array([0.0, 1.0 - 2.0 * flip, 2.0 * flip - 1.0])  # nothing known, up, down
    transition = np.array([[0.0, 0.5, 0.5], [0.0, 1 - flip, flip], [0.0, flip, 1 - flip]])
    limit = ladder.solve(edge, transition, 1.0, 64).value[0, 1]
    with np.errstate(over="ignore"):
        attainable, _ = regime.attainable(params)
    assert attainable == pytest.approx(limit, rel=5e-3)
    assert attainable < regime.informed(params)


def test_the_best_play_earns_the_optimum_in_the_game():
    key = jax.random.key(0)
    params = reversion.params(steps=64)
    optimum, solution = reversion.optimum(params)
    earned = population.play(
        reversion.Reversion(), reversion.best_policy(), solution.target, params, key, EPISODES, 64
    )
    assert within_errors(earned, optimum)

    params = regime.params(steps=64)
    optimum, solution = regime.attainable(params)
    earned = population.play(
        regime.Regime(), regime.best_policy(params), solution.target, params, key, EPISODES, 64
    )
    assert within_errors(earned, optimum)


# The games


def test_a_game_pays_the_return_times_the_position_less_the_lots_moved():
    env, params = regime.Regime(), regime.params(cost=0.7, steps=100)
    keys = jax.random.split(jax.random.key(2), 51)
    actions = np.random.default_rng(2).integers(0, 3, 50)
    _, state = jax.jit(env.reset)(keys[0], params)
    step, held = jax.jit(env.step), 0
    for key, action in zip(keys[1:], actions, strict=True):
        obs, state, reward, *_ = step(key, state, jnp.int32(action), params)
        target = np.clip(held + action - 1, -1, 1)
        move = float(obs[0]) * float(params.noise)
        assert float(reward) == pytest.approx(target * move - 0.7 * abs(target - held), abs=1e-5)
        assert float(obs[1]) == target
        held = target


def test_the_cue_is_shown_once_and_only_its_last_bar_pays():
    env, params = cue.Cue(), cue.params(delay=4, noise=0.0, cost=0.25)
    obs, state = jax.jit(env.reset)(jax.random.key(3), params)
    sign, key, step = float(obs[0]), jax.random.key(0), jax.jit(env.step)
    side = jnp.int32(1 + sign)
    rewards, seen = [], [tuple(obs.tolist())]
    for _ in range(5):
        obs, state, reward, terminated, _, _ = step(key, state, side, params)
        rewards.append(float(reward))
        seen.append(tuple(obs.tolist()))
    assert abs(sign) == 1
    assert rewards == [-0.25] * 4 + [0.75] and bool(terminated)
    assert seen[:5] == [(sign, 0), (0, 0), (0, 0), (0, 0), (0, 1)]
    assert cue.optimum(params) == 0.75


def test_without_recurrence_nothing_is_remembered_and_then_everything_again():
    settings = config.Network(lstm_hidden_size=8, net_arch=(8,))
    params = jax.jit(lambda key: network.init(key, settings, num_inputs=2))(jax.random.key(0))
    obs = np.ones((2, 5, 3, 2), np.float32)  # two histories of 5 steps that end alike
    obs[0, :4], obs[1, :4] = -1.0, 2.0

    def last_outputs():
        def of(obs):
            carry, first = network.initial_carry(params, 3), jnp.zeros((5, 3), bool)
            _, logits, value = network.apply_sequence(params, carry, obs, first)
            return jnp.concatenate([logits[-1], value[-1, :, None]], axis=1)

        return np.asarray(jax.jit(jax.vmap(of))(obs))

    with population.without_recurrence():
        forgetful = last_outputs()
    np.testing.assert_allclose(*forgetful, rtol=0.0, atol=1e-6)  # rounding of vectorised loops
    assert np.abs(np.subtract(*last_outputs())).max() > 1e-3


# Learning


def test_two_agents_learn_in_one_program_to_remember_the_cue():
    settings = games.CUE | {"num_envs": 16, "ppo.n_steps": 32, "ppo.learning_rate": 0.01}
    env, params = cue.Cue(), cue.params(delay=3, noise=0.1)
    played = games.examine(env, params, 2, 0, 64, steps=4, updates=40, settings=settings)
    assert played.greedy.shape == (2, 64)
    assert np.all(played.greedy.mean(axis=1) > 0.9 * cue.optimum(params))


SHORT = {
    "num_envs": 32,
    "network.lstm_hidden_size": 8,
    "network.net_arch": [16],
    "max_steps_in_episode": 64,
}
"""Games of 64 bars, a quarter of the benchmark's, for two agents of half its width."""


def test_two_agents_learn_to_trade_the_visible_signal():
    params = reversion.params(steps=64)
    settings = games.REVERSION | SHORT
    played = games.examine(
        reversion.Reversion(), params, 2, 1, 256, steps=64, updates=80, settings=settings
    )
    assert np.all(played.greedy.mean(axis=1) > 0.8 * reversion.optimum(params)[0])


def test_two_agents_learn_the_hidden_regime_and_not_without_recurrence():
    params = regime.params(steps=64, noise=2.0)
    share = {}
    for recurrent in (True, False):
        played = games.examine(
            regime.Regime(),
            params,
            2,
            1,
            256,
            steps=64,
            updates=90,
            settings=games.REGIME | SHORT,
            recurrent=recurrent,
        )
        share[recurrent] = played.greedy.mean(axis=1) / regime.attainable(params)[0]
    assert share[True].min() > 0.85
    assert share[True].min() > 0.1 + share[False].max()


FEW = {"num_envs": 32, "network.lstm_hidden_size": 16, "network.net_arch": [32]}


def test_two_agents_learn_not_to_trade_where_nothing_can_be_earned():
    assert trading.null(2, 1, 64, updates=15, **FEW).failures == []


def test_two_agents_learn_to_hold_what_rises():
    found = trading.drift(2, 1, 64, updates=20, **FEW)
    assert found.failures == [] and min(found.shares) > trading.LEAST_SHARE


@pytest.mark.long
@pytest.mark.parametrize("market", list(command.MARKETS))
def test_ten_agents_reach_what_is_asked_of_them(market):
    assert command.MARKETS[market](10, 2, 1024).failures == []


# The verdict


def test_a_share_counts_by_its_interval():
    assert report.below(Interval(0.95, 0.91, 0.97), 0.9) == []
    assert "92.0%" in report.below(Interval(0.92, 0.89, 0.97), 0.9)[0]
    better, worse = Interval(0.9, 0.8, 1.0), Interval(0.5, 0.4, 0.7)
    assert report.not_above(better, worse, "baseline") == []
    assert report.not_above(better, Interval(0.7, 0.6, 0.81), "baseline") != []


def null_episodes(orders, net):
    shape = (4, 50)
    noise = np.tile([-1.0, 1.0], 25)
    return {
        "trade/orders": np.full(shape, float(orders)),
        "length": np.full(shape, 1000.0),
        "pnl/net": np.broadcast_to(net + noise, shape) * bool(orders),
    }


def test_the_null_market_wants_stillness_and_no_money():
    busy, paths = null_episodes(200, -40.0), np.arange(50)
    assert trading.judge_null(null_episodes(0, 0.0), busy, paths).failures == []
    assert trading.judge_null(null_episodes(9, 0.4), busy, paths).failures == []
    assert "1%" in trading.judge_null(null_episodes(10, 0.4), busy, paths).failures[0]
    for net in (0.5, -0.5):  # the standard error is 1/√49 = 0.143
        assert "errors" in trading.judge_null(null_episodes(9, net), busy, paths).failures[0]


def test_drift_is_measured_against_buy_and_hold_on_the_same_paths():
    hold = np.random.default_rng(0).normal(100.0, 50.0, 60)
    paths = np.arange(60)

    def judge(share):
        agents = np.stack([share * hold] * 3)
        return trading.judge_drift(agents, agents, hold, paths)

    assert judge(0.96).failures == [] and judge(0.96).share.value == pytest.approx(0.96)
    assert judge(0.94).failures != []


def a_finding(market="cue", failures=()):
    interval = Interval(0.9, 0.8, 1.0)
    return report.Finding(
        market, "$", 1.0, interval, interval, "≥ 90 %", list(failures), share=interval, shares=[0.9]
    )


def test_the_command_exits_1_where_a_market_fails_and_keeps_what_others_found(
    tmp_path, monkeypatch, capsys
):
    results, png = tmp_path / "found.json", tmp_path / "found.png"
    places = ["--results", str(results), "--figure", str(png)]
    monkeypatch.setitem(command.MARKETS, "cue", lambda *_: a_finding())
    monkeypatch.setitem(command.MARKETS, "regime", lambda *_: a_finding("regime", ["too little"]))
    monkeypatch.setattr(command.backend, "use_compilation_cache", lambda: None)
    assert command.main(["--only", "cue", *places]) == 0
    assert command.main(["--only", "regime", *places]) == 1
    assert "regime FAILS: too little" in capsys.readouterr().out
    assert list(json.loads(results.read_text("utf-8"))) == ["cue", "regime"]
    assert report.read(results) == [a_finding(), a_finding("regime", ["too little"])]
    assert png.stat().st_size > 1000
    for wrong in (["--only", "tides"], ["--seeds", "0"], ["--episodes", "1"]):
        assert command.main([*wrong, *places]) == 2
        assert f"found {wrong[1]}" in capsys.readouterr().err.replace("'", "")
