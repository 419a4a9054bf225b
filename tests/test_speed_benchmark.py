"""The arithmetic of the speed benchmarks, and that what they compare with does the same work."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import cost_growth, logging_cost, purejaxrl_style, startup, timing, workload
from benchmarks.cost_growth import Gain
from benchmarks.timing import Row
from jules_jax import config
from jules_jax.agent import network, ppo
from tests.agent import toy_envs
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_runs_take_turns_after_one_run_each_to_compile() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = timing.interleaved(runs, 2)
    assert "".join(order) == "ab" * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_taken_within_rounds_so_that_a_slow_round_does_not_move_it() -> None:
    seconds = {"ours": [1.0, 10.0, 1.0], "theirs": [4.0, 40.0, 2.0]}
    work = {"ours": 100.0, "theirs": 50.0}
    assert timing.ratio(seconds, work, "ours", "theirs") == (8.0, 4.0, 8.0)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("fast", 1.0, "steps/s", "peer", (3.0, 2.0, 4.0), 3.0), "yes"),
        (Row("slow", 1.0, "steps/s", "peer", (2.9, 2.0, 4.0), 3.0), "NO"),
        (Row("soon", 44.0, "s", wanted=45.0), "yes"),
        (Row("late", 46.0, "s", wanted=45.0), "NO"),
        (Row("share", 0.61, "of 1", wanted=0.6), "yes"),
        (Row("unmeasured", None, "steps/s", wanted=3.0), "NO"),
        (Row("free", 1.0, "steps/s"), ""),
    ],
)
def test_a_row_says_whether_what_is_wanted_is_reached(row: Row, verdict: str) -> None:
    assert row.verdict == verdict
    assert ("wanted" in timing.as_table([row])) == bool(verdict)


def test_the_parts_of_a_start_up_are_read_from_what_the_command_prints() -> None:
    lines = [
        "imports     6.2 s\n",
        "market      simulated paths, preset easy\n",
        "start-up    market 3.4 s, compilation 12.5 s\n",
        "validation  64 episodes on fresh paths at each checkpoint; 1.5 s\n",
        "checkpoint  of the beginning; 0.5 s\n",
        "update 1    4.5 s\n",
    ]
    assert startup.read_parts(lines) == {
        "imports": 6.2,
        "market": 3.4,
        "compilation": 12.5,
        "validation": 1.5,
        "checkpoint": 0.5,
        "first update": 4.5,
    }
    shown = [bool(startup.FIRST_UPDATE.match(line)) for line in lines]
    assert shown == [False] * 5 + [True]
    assert startup.FIRST_UPDATE.match("update  1/40        49,152 steps")
    assert not startup.FIRST_UPDATE.match("update 10/40       491,520 steps")


def test_the_exponent_of_a_power_law_is_its_power() -> None:
    sizes = [64, 256, 1024, 4096]
    assert cost_growth.exponent(sizes, [1e-4 * n**0.9 for n in sizes]) == pytest.approx(0.9)


def test_the_crossover_is_the_fewest_members_that_lose() -> None:
    gains = [
        *(Gain(16, m, g, g, g) for m, g in ((2, 1.8), (4, 2.5))),
        *(Gain(64, m, g, g, g) for m, g in ((2, 1.2), (4, 0.9), (8, 0.8))),
    ]
    assert cost_growth.crossover(gains) == {16: None, 64: 4}


def test_multiply_adds_are_those_of_a_forward_pass() -> None:
    size = config.Network(lstm_hidden_size=5, net_arch=(7,))
    ours = jax.eval_shape(lambda key: network.init(key, size, 4, 3), jax.random.key(0))
    by_hand = 2 * (4 * 20 + 5 * 20 + 5 * 7) + 7 * 3 + 7
    assert workload.multiply_adds(ours) == by_hand
    model = purejaxrl_style.SeparateActorCritic(hidden_size=5, net_arch=(7,))
    inputs = (jnp.zeros((1, 2, 4)), jnp.zeros((1, 2), bool))
    theirs = jax.eval_shape(lambda key: model.init(key, model.empty(2), inputs), jax.random.key(0))
    assert workload.multiply_adds(theirs) == by_hand


def test_the_style_loop_estimates_the_same_advantages_where_no_episode_is_cut() -> None:
    rng = np.random.default_rng(0)
    reward, value, done = rng.normal(size=(3, 6, 4)).astype(np.float32)
    done, last = done > 0.5, rng.normal(size=4).astype(np.float32)
    settings = config.PPO()
    steps = purejaxrl_style.Transition(
        done=jnp.asarray(np.vstack([np.zeros(4, bool)[None], done[:-1]])),
        action=None,
        value=value,
        reward=reward,
        log_prob=None,
        obs=None,
    )
    theirs = purejaxrl_style._gae(steps, last, jnp.asarray(done[-1]), settings)
    v_next = np.vstack([value[1:], last[None]])
    never = np.zeros_like(done)
    ours = ppo.gae(reward, value, v_next, done, never, settings.gamma, settings.gae_lambda)
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


def test_the_style_loop_trains() -> None:
    settings = config.Config(
        num_envs=8,
        max_steps_in_episode=10,
        ppo=config.PPO(n_steps=8, n_epochs=2, num_minibatches=2),
    )
    model = purejaxrl_style.SharedActorCritic(width=8)
    init, train = purejaxrl_style.make_train(toy_envs.StaggeredWalk(), model, settings, 2)
    runner = init(jax.random.key(0), toy_envs.params())
    before = jax.tree.map(np.asarray, runner.train.params)
    runner, losses = train(runner, toy_envs.params())
    assert losses.shape == (2,) and np.isfinite(losses).all()
    assert int(runner.train.step) == 2 * 2 * 2
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, runner.train.params)
    assert all(jax.tree.leaves(moved))


def test_the_cost_of_logging_is_the_sum_of_its_parts_over_an_update() -> None:
    table, share = logging_cost.report(config.load(SETTINGS), rounds=1)
    parts = [line for line in table.splitlines() if line.endswith("%")]
    assert [line.split(":")[0].split()[0] for line in parts] == [
        "gathered",
        "written",
        "shown",
        "drawn",
    ]
    told = sum(float(line.split()[-1].rstrip("%")) for line in parts)
    assert share > 0 and abs(told - 100 * share) < 0.05
