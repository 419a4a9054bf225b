"""The arithmetic of benchmarks/ablation.py; the whole of it in small is a long test."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import ablation, populations
from benchmarks.ablation import BINS, Store, summarise
from benchmarks.populations import Trained
from jules_jax import config
from jules_jax.agent import network, policy
from jules_jax.env.record import StepRecord
from jules_jax.errors import InputError
from jules_jax.evaluation.backtest import Starts

SMALL = config.Network(lstm_hidden_size=4, net_arch=(4,))


@pytest.fixture(scope="module")
def base():
    return config.load({"devices": 1}, file=ablation.BASE)


def history(updates=6, seeds=2, **values):
    metrics = {f"step_sum/entry_p/{i}": 0.0 for i in range(BINS)} | {
        "step_sum/decide/flat": 30.0,
        "step_sum/decide/held": 10.0,
        "step_sum/decide/entropy": 20.0,
        "step_sum/decide/entries": 8.0,
        "step_sum/decide/entries_against_mode": 6.0,
        "step_sum/decide/exits": 4.0,
        "step_sum/decide/exits_against_mode": 1.0,
        "step_sum/entry_p/2": 6.0,
        "step_sum/entry_p/7": 2.0,
        "train/explained_variance": 0.25,
        "rollout/episodes": 0.0,
        "episode_sum/pnl/net": 0.0,
    }
    return {name: np.full((updates, seeds), value) for name, value in (metrics | values).items()}


def row(base, name="base", greedy=5.0, **changes):
    net = {"sampled": np.full((2, 8), 10.0), "greedy": np.full((2, 8), greedy)}
    return summarise(name, base, history(**changes), net, np.full(8, 50.0), 7.0)


def test_every_variant_is_valid_and_makes_the_steps_of_the_base(base):
    found = ablation.settings_of(base, list(ablation.variants(base)))
    steps = {one.num_envs * one.ppo.n_steps * one.num_updates for one in found.values()}
    assert steps == {base.total_timesteps}
    assert len(set(found.values())) == len(found)  # no two are the same


def test_variants_that_differ_in_numbers_alone_share_a_program(base):
    names = ["base", "gamma 0.95", "epochs 2", "entropy 0.01 to 0", "masked, gamma 0.995"]
    settings = ablation.settings_of(base, [*names, "actions masked"])
    assert ablation.programs(settings) == [
        ["base", "gamma 0.95", "entropy 0.01 to 0"],
        ["epochs 2"],
        ["masked, gamma 0.995", "actions masked"],
    ]


def test_what_cannot_be_compared_is_refused(base):
    with pytest.raises(InputError, match="'speling'"):
        ablation.settings_of(base, ["base", "speling"])
    odd = dataclasses.replace(base, total_timesteps=base.num_envs * base.ppo.n_steps * 3)
    with pytest.raises(InputError, match="twice the lanes"):
        ablation.settings_of(odd, ["base", "twice the lanes"])


@pytest.mark.parametrize("greedy", [True, False])
def test_members_of_a_population_act_as_each_does_alone(greedy):
    one = policy.from_network(greedy=greedy)
    shapes = jax.eval_shape(lambda key: network.init(key, SMALL), jax.random.key(0))
    rng = np.random.default_rng(0)
    stacked = jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=(3, *leaf.shape))), shapes)
    members = [jax.tree.map(lambda leaf: leaf[i], stacked) for i in range(3)]  # noqa: B023
    obs = 3.0 * jax.random.normal(jax.random.key(9), (6, 12))
    keys, first = jax.random.split(jax.random.key(8), 6), jnp.zeros(6, bool)
    everyone = populations.population(one)
    carry = everyone.initial_carry(stacked, 6)
    carry = jax.tree.map(lambda leaf: leaf + 0.5, carry)
    carry, action = everyone.act(stacked, keys, carry, obs, first)
    for i, member in enumerate(members):
        own = slice(2 * i, 2 * i + 2)
        start = jax.tree.map(lambda leaf: leaf + 0.5, one.initial_carry(member, 2))
        alone, chosen = one.act(member, keys[own], start, obs[own], first[own])
        np.testing.assert_array_equal(action[own], chosen)
        np.testing.assert_allclose(carry.cell[own], alone.cell, atol=1e-6)


def test_an_entry_against_the_mode_is_counted_with_its_probability():
    nothing = {field.name: jnp.int32(0) for field in dataclasses.fields(StepRecord)}
    fill = nothing | {"action_matters": jnp.bool_(True), "quantity": jnp.int32(5)}
    fill |= {"forced": jnp.bool_(False)}
    logits = jnp.log(jnp.array([0.05, 0.6, 0.35]))

    def measured(action, **changes):
        record = StepRecord(**(fill | changes))
        counts = ablation.measure({"record": record}, jnp.int32(action), logits)
        return {name: float(x) for name, x in counts.items() if name[:5] in ("decid", "entry")}

    bought = measured(2)
    assert bought["decide/entries"] == bought["decide/entries_against_mode"] == 1
    assert bought["entry_p/3"] == 1 and bought["decide/held"] == bought["decide/exits"] == 0
    entropy = -np.sum(np.array([0.05, 0.6, 0.35]) * np.log([0.05, 0.6, 0.35]))
    assert bought["decide/entropy"] == pytest.approx(entropy, abs=1e-5)
    closed = measured(2, position_before=jnp.int32(-5))
    assert closed["decide/exits_against_mode"] == 1 and closed["decide/entries"] == 0
    refused = measured(2, action_matters=jnp.bool_(False), quantity=jnp.int32(0))
    assert not any(refused.values())


def test_a_row_is_of_the_seeds_episodes_and_of_the_last_updates(base):
    found = row(base)
    assert found.steps == base.total_timesteps
    assert found.sampled.value == pytest.approx(10.0) and found.greedy.value == pytest.approx(5.0)
    assert found.sampled_share.value == pytest.approx(0.2)
    assert found.greedy_to_sampled == pytest.approx(0.5)
    assert found.entropy == pytest.approx(0.5)  # 20 nats over 40 steps
    assert found.entries_against_mode == pytest.approx(0.75)
    assert found.exits_against_mode == pytest.approx(0.25)
    assert found.entry_probability[2] == pytest.approx(0.75)
    assert sum(found.entry_probability) == pytest.approx(1.0)
    assert found.curve == [None] * 6  # no episode ended
    ended = row(base, **{"rollout/episodes": 4.0, "episode_sum/pnl/net": 20.0})
    assert ended.curve == [5.0] * 6


def test_a_report_has_the_greedy_policy_with_patience_too(base, tmp_path):
    net = {"sampled": np.full((2, 8), 10.0), "greedy": np.full((2, 8), 1.0)}
    net["10"] = np.full((2, 8), 7.5)
    found = summarise("base", base, history(), net, np.full(8, 50.0), 7.0)
    ((earned, share),) = found.patient.values()
    assert earned.value == pytest.approx(7.5) and share.value == pytest.approx(0.15)
    store = Store.open(tmp_path / "ablation.json", setup())
    store.add(found)
    assert Store.open(tmp_path / "ablation.json", setup()).rows == {"base": found}
    assert "| base, patience 10 |" in store.table()


def setup(**changes):
    given = {"preset": "easy", "lanes": 8, "timesteps": 64, "seeds": 2, "episodes": 8}
    return given | {"earn": {"oracle": [50.0, 50.0, 50.0]}} | changes


def test_rows_of_the_same_setup_are_kept_and_of_another_are_not(base, tmp_path):
    path = tmp_path / "new" / "ablation.json"
    Store.open(path, setup()).add(row(base))
    again = Store.open(path, setup())
    assert again.rows == {"base": row(base)}
    again.add(row(base, "better", greedy=6.0))
    assert json.loads(path.read_text())["setup"] == setup()
    assert Store.open(path, setup(seeds=3)).rows == {}
    assert Store.open(path, setup(base="of another config")).rows == {}
    other = setup(earn={"oracle": [50.0, 50.0, 50.0], "a better rule": [9.0, 8.0, 10.0]})
    assert Store.open(path, other).rows.keys() == {"base", "better"}  # rows know of no rule
    other = setup(earn={"another oracle": [60.0, 60.0, 60.0]})
    assert Store.open(path, other).rows == {}  # shares are of the oracle's


def test_the_base_of_the_table_stays_what_it_was_when_the_smoke_run_is_calibrated(base):
    found = ablation.base_config(ablation.parse([]))
    assert found.account.position_size_pct == 0.25 != base.account.position_size_pct
    asked = ablation.parse(["--base", str(ablation.BASE)])
    assert ablation.base_config(asked).account == base.account


def test_a_table_is_of_what_is_trained_and_traded_whatever_judges_it(base):
    mark = ablation.fingerprint(base)
    judged = dataclasses.replace(base, gates=dataclasses.replace(base.gates, reward_max=9.0))
    assert ablation.fingerprint(judged) == mark
    larger = dataclasses.replace(base.account, position_size_pct=0.3)
    assert ablation.fingerprint(dataclasses.replace(base, account=larger)) != mark


@pytest.mark.parametrize("preset", ["easy", "default"])
def test_the_stored_tables_can_be_gone_on_with(preset):
    stored = json.loads((ablation.RESULTS / f"ablation-{preset}.json").read_text())["setup"]
    sizes = ["--lanes", str(stored["lanes"]), "--timesteps", str(stored["timesteps"])]
    given = ablation.parse(["--preset", preset, "--seed", str(stored["seed"]), *sizes])
    assert ablation.fingerprint(ablation.base_config(given)) == stored["base"]


def test_the_table_has_the_best_greedy_policy_first(base, tmp_path):
    store = Store.open(tmp_path / "ablation.json", setup())
    for name, greedy in (("worst", 1.0), ("best", 9.0), ("middle", 5.0)):
        store.add(row(base, name, greedy))
    lines = (tmp_path / "ablation.md").read_text().splitlines()
    names = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert names == ["variant", "---", "best", "middle", "worst"]
    assert "oracle: 50.0 [50.0, 50.0]" in lines[0]


def test_what_is_reported_is_trained_from_other_seeds_on_other_paths(base, tmp_path, monkeypatch):
    seen = []

    def train(learner, keys, path_key, numbers):
        seen.append(np.concatenate([jax.random.key_data(keys), [jax.random.key_data(path_key)]]))
        return Trained(None, history(seeds=len(keys)), 1.0)

    def play(who, weights, days, key):
        played.append(jax.random.key_data(key))
        return np.ones((2, 4))

    played = []
    monkeypatch.setattr(populations, "markets", lambda settings, key: key)
    monkeypatch.setattr(populations, "train", train)
    monkeypatch.setattr(populations, "play", play)
    days = ablation.Days(None, Starts(*np.zeros((3, 4), np.int32)), None)
    for report in (False, True):
        store = Store.open(tmp_path / f"{report}.json", setup())
        common = ablation.Ablation(jax.random.key(0), 2, days, np.ones(4), store, report)
        assert [found.name for found in common.run({"base": base})] == ["base"]
    keys = np.concatenate(seen)
    assert len(np.unique(played, axis=0)) == 1  # the same draws for all, on whatever paths
    others = [jax.random.fold_in(jax.random.key(0), use) for use in (2, 3, 6)]
    keys = np.concatenate([keys, [jax.random.key_data(key) for key in others], played[:1]])
    keys = np.concatenate([keys, [jax.random.key_data(jax.random.key(0))]])
    assert len(np.unique(keys, axis=0)) == len(keys) == 11


@pytest.mark.long
def test_the_whole_in_small(tmp_path, capsys):
    arguments = ["--seeds", "2", "--lanes", "8", "--timesteps", "4096", "--episodes", "4"]
    arguments += ["--results", str(tmp_path), "--only", "base; gamma 0.95"]
    assert ablation.main(arguments) == 0
    assert capsys.readouterr().out.count("gamma 0.95") == 2
    assert ablation.main(arguments) == 0  # all is there: nothing is trained again
    assert capsys.readouterr().out.count("gamma 0.95") == 1
