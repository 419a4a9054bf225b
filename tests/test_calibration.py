"""Calibration: the search for a value, its seeds, what it writes, and the command."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jules_jax import config
from jules_jax.env.metrics import step_metrics
from jules_jax.env.record import StepRecord
from jules_jax.errors import InputError, Stopped
from jules_jax.evaluation.evidence import GATES_KEY
from jules_jax.evaluation.unseen import EVALUATION_KEY
from jules_jax.training import market, preparation
from jules_jax.training.calibration import choice, knobs, report, search, trials
from jules_jax.training.calibration.search import Outcome, Response, Target
from jules_jax.training.calibration.trials import Trial
from jules_jax.training.figures import FIGURES_KEY
from jules_jax.training.validation import VALIDATION_KEY
from tests.test_commands import outputs, run
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("quick_compilation")

SMOKE = Path(__file__).parents[1] / "configs" / "phase1_smoke.yaml"
ORDINARY_SEEDS = st.integers(0, trials.FIRST_SEED - 1)
ROUND = st.tuples(
    st.integers(0, trials.SEEDS_BEFORE - 1), st.integers(0, trials.ROUNDS - 1)
)  # a calibration's seed, and its round


def responding(response, noise=0.0, agents=3, seed=0):
    """A measurement of a response to values, by agents that each miss it by `noise`."""
    rng = np.random.default_rng(seed)

    def measure(values, turn):
        shared = rng.normal(0, noise, agents)  # the same seeds at all values of a round
        return [
            Response(
                value,
                float(np.mean(response(value) + shared)),
                float(np.std(shared, ddof=1) / np.sqrt(agents)),
                agents,
            )
            for value in values
        ]

    return measure


@given(
    power=st.floats(0.4, 2.5),
    scale=st.floats(0.1, 100.0),
    part=st.floats(0.02, 0.98),
    points=st.integers(2, 8),
    falls=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_the_value_of_a_monotone_response_is_found(power, scale, part, points, falls):
    def response(value):
        return scale * (value if not falls else 1.0 / value) ** power

    aim = response(0.5) + part * (response(2.0) - response(0.5))
    target = Target(aim, 0.1 * aim)
    measure = responding(response)
    found = search.search(measure, target, search.grid(0.5, 2.0, points), confirmations=9)
    assert found.reached
    assert abs(response(found.best.value) - aim) <= target.tolerance
    assert 0.5 <= found.best.value <= 2.0
    turns = len(found.responses) - points
    assert 1 <= turns <= 9


def test_noise_is_averaged_out_rather_than_picked_from():
    """Agents as different as those of the design (sd 1): the chosen values are right on average."""

    def response(value):
        return 20.0 * value

    target, grid = Target(5.0, 0.5), search.grid(0.125, 0.5, 5)
    found = [
        search.search(responding(response, 1.0, seed=seed), target, grid, confirmations=3)
        for seed in range(300)
    ]
    reached = [each for each in found if each.reached]
    truth = np.array([response(each.best.value) for each in reached])
    assert len(reached) > 0.75 * len(found)
    assert abs(truth.mean() - 5.0) < 0.15
    assert np.mean(np.abs(truth - 5.0) < 1.0) > 0.9  # the band of 4 to 6


def test_what_is_chosen_held_on_seeds_that_did_not_choose_it():
    turns = []

    def measure(values, turn):
        turns.append((turn, list(values)))
        return responding(lambda value: 20.0 * value)(values, turn)

    found = search.search(measure, Target(5.0, 0.5), (0.125, 0.25, 0.5), confirmations=3)
    assert turns == [(0, [0.125, 0.25, 0.5]), (1, [0.25])]
    assert found.best is found.responses[-1]


def test_a_grid_that_was_lucky_is_not_believed():
    def measure(values, turn):
        return [Response(value, 20 * value + 4 * (turn > 0), 0.1, 3) for value in values]

    found = search.search(measure, Target(5.0, 0.5), (0.24, 0.25, 0.26), confirmations=1)
    assert not found.reached
    assert (found.best.value, found.best.mean) == (0.25, 9.0)


def test_without_confirmations_the_nearest_of_the_grid_is_taken():
    measure = responding(lambda value: 20.0 * value)
    found = search.search(measure, Target(5.0, 0.5), (0.1, 0.24, 0.5), confirmations=0)
    assert (found.reached, found.best.value, len(found.responses)) == (True, 0.24, 3)
    found = search.search(measure, Target(5.0, 0.5), (0.1, 0.3, 0.5), confirmations=0)
    assert (found.reached, found.best.value) == (False, 0.3)


@pytest.mark.parametrize(
    ("response", "nearest", "words"),
    [
        (lambda value: value, 0.5, "all fitted responses are below it.*beyond 0.5"),
        (lambda value: 10 + value, 0.125, "all fitted responses are above it.*beyond 0.125"),
        (lambda value: 10 - value, 0.5, "all fitted responses are above it.*beyond 0.5"),
    ],
)
def test_an_aim_out_of_reach_is_told_with_the_nearest_and_where_to_look(response, nearest, words):
    target = Target(5.0, 0.5)
    found = search.search(responding(response), target, (0.125, 0.25, 0.5), confirmations=3)
    assert not found.reached
    assert found.best.value == nearest
    assert len(found.responses) == 3  # nothing was spent on it
    knob = knobs.Knob("account.position_size_pct", ("account.position_size_pct",))
    assert re.search(words, report.verdict(found, target, knob, "episode reward"))


def test_a_response_that_jumps_over_the_aim_is_not_reached():
    """A step from 0 to 10 has no value of 5: every try in between is told, and none chosen."""
    measure = responding(lambda value: 10.0 * (value > 0.3))
    found = search.search(measure, Target(5.0, 0.5), (0.125, 0.25, 0.5), confirmations=4)
    assert not found.reached
    assert len(found.responses) == 3 + 4
    assert found.best in found.responses


def test_a_fit_is_the_nearest_monotone_one_weighted_by_agents():
    tried = [(1.0, 1.0, 3), (2.0, 4.0, 3), (3.0, 2.5, 6), (4.0, 6.0, 3)]
    values, fitted = search.fit([Response(v, m, 0.1, n) for v, m, n in tried])
    np.testing.assert_array_equal(values, [1, 2, 3, 4])
    np.testing.assert_allclose(fitted, [1.0, 3.0, 3.0, 6.0])  # (3 · 4 + 6 · 2.5) / 9 = 3
    again = [*tried, (1.0, 2.0, 1)]  # new seeds at a value join those it had: (3 · 1 + 2) / 4
    _, fitted = search.fit([Response(v, m, 0.1, n) for v, m, n in again])
    np.testing.assert_allclose(fitted[0], 1.25)


def test_the_fit_is_solved_in_the_middle_of_where_it_is_flat():
    flat = [Response(v, m, 0.1, 3) for v, m in ((1.0, 0.0), (2.0, 5.0), (4.0, 5.0), (5.0, 9.0))]
    assert search.solve(flat, 5.0) == 3.0
    assert search.solve(flat, 2.5) == 1.5
    assert search.solve(flat, 7.0) == 4.5
    assert search.solve(flat, 9.5) is None
    falling = [Response(-each.value, each.mean, 0.1, 3) for each in flat]
    assert search.solve(falling, 7.0) == -4.5


def test_a_grid_goes_by_a_constant_factor_and_has_no_value_twice():
    assert search.grid(0.1, 0.4, 3) == (0.1, 0.2, 0.4)
    assert search.grid(0.0, 1.0, 3) == (0.0, 0.5, 1.0)
    assert search.grid(0.25, 0.2501, 5) == (0.25,)


@given(first=ROUND, second=ROUND)
@settings(deadline=None)
def test_no_two_rounds_share_a_seed_and_none_is_anybody_elses(first, second):
    one, two = (
        set(range(trials.first_seed(*each), trials.first_seed(*each) + trials.SEEDS_OF_ROUND))
        for each in (first, second)
    )
    assert first == second or not one & two
    assert min(one) >= trials.FIRST_SEED and max(one) < 2**31
    assert min(one) + trials.MOST_SEEDS in one  # that of the paths, which trains nobody


@given(ordinary=ORDINARY_SEEDS, calibration=ROUND, agent=st.integers(0, trials.MOST_SEEDS))
@settings(deadline=None, max_examples=25)
def test_calibration_draws_from_keys_of_no_run_evaluation_or_gate(ordinary, calibration, agent):
    uses = [
        market.MARKET_KEY,
        preparation.LEARNER_KEY,
        VALIDATION_KEY,
        FIGURES_KEY,
        EVALUATION_KEY,
        GATES_KEY,
        trials.CALIBRATION_KEY,
    ]
    seeds = [ordinary, trials.first_seed(*calibration) + agent]
    keys = {
        tuple(np.asarray(jax.random.key_data(jax.random.fold_in(jax.random.key(seed), use))))
        for seed in seeds
        for use in uses
    }
    assert len(keys) == len(seeds) * len(uses)


def test_a_seed_without_room_for_calibration_is_refused():
    with pytest.raises(InputError, match="expected a seed below 14,748"):
        trials.first_seed(14_748, 0)
    with pytest.raises(InputError, match="at most 10 rounds"):
        trials.first_seed(0, 10)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("num_envs", {}, "num_envs of --key cannot be calibrated, expected a number of simulator"),
        ("position_sise_pct", {}, "the nearest valid key is 'account.position_size_pct'"),
        ("edge", {"simulator.mispricing_sd_bp": 0}, "edge .* which are all 0 here"),
        ("edge", {"market.data": "bars.csv"}, "is of simulated paths, and market.data is bars.csv"),
    ],
)
def test_what_cannot_be_turned_is_told_in_a_sentence(name, values, words):
    with pytest.raises(InputError, match=words):
        knobs.find(name, config.load(values))


def test_a_factor_multiplies_all_that_make_the_edge_and_nothing_else():
    base = config.load({"simulator.preset": "default"})
    knob = knobs.find("edge", base)
    turned = knob.turned(base, 0.5, "here")
    assert turned.simulator.reversion_strength == pytest.approx(0.007)
    assert turned.simulator.momentum_strength == pytest.approx(0.006)
    before = config.to_dict(base)
    before["simulator"] |= {"reversion_strength": 0.007, "momentum_strength": 0.006}
    assert config.to_dict(turned) == before
    assert not knob.is_parallel
    assert knobs.find("position_size_pct", base).is_parallel


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("reward.action_change_penalty_factor", ("action_change",)),
        ("reward.same_action_penalty_factor", ("same_action",)),
        ("drawdown-weight", ("drawdown",)),
        ("reward.reward_scaling", knobs.PENALTIES),
    ],
)
def test_a_penalty_factor_is_tuned_to_its_own_penalty(name, terms):
    assert knobs.find(name, config.Config()).penalties == terms


def doctored(value=0.25, turn=0, seeds=3, episodes=40, reward=5.0):
    """A trial of agents whose rewards differ by seed and path, and who pay what is told here."""
    rng = np.random.default_rng(turn)
    by_seed, by_path = rng.normal(0, 1, (seeds, 1)), rng.normal(0, 2, episodes)
    flat = np.ones((seeds, episodes))
    return Trial(
        value,
        turn,
        tuple(range(seeds)),
        {
            "reward": reward + by_seed + by_path,
            "pnl/net": flat,
            "trade/orders": flat,
            "reward/absolute_equity_change": 200 * flat,
            "reward/action_change": -6 * flat,
            "reward/same_action": -2 * flat,
            "reward/drawdown": 0 * flat,
        },
        np.arange(episodes, dtype=np.int32),
        np.full(seeds, 0.6),
        np.full(seeds, np.nan),
        ("action_change",),
    )


def test_a_trial_tells_errors_over_seeds_and_over_paths_apart():
    trial = doctored()
    rewards = trial.episodes["reward"]
    assert trial.reward.mean == pytest.approx(rewards.mean())
    assert trial.reward.error == pytest.approx(np.std(rewards.mean(axis=1), ddof=1) / np.sqrt(3))
    assert trial.path_error == pytest.approx(np.std(rewards.mean(axis=0), ddof=1) / np.sqrt(40))
    low, high = trial.reward_interval.low, trial.reward_interval.high
    assert low < trial.reward.mean < high
    assert trial.share.mean == pytest.approx(0.03)
    assert trial.shares(knobs.PENALTIES).tolist() == pytest.approx([0.04] * 3)
    assert "5." in report.table([trial]) and "3.000" in report.table([trial])


def test_agents_that_never_hold_anything_have_no_share_of_penalties():
    trial = doctored()
    still = {name: 0 * values for name, values in trial.episodes.items()}
    assert dataclasses.replace(trial, episodes=still).share.mean == 0.0


def test_equity_changes_are_summed_by_size_for_the_share_of_penalties():
    nothing = {field.name: np.zeros(3, np.int32) for field in dataclasses.fields(StepRecord)}
    record = SimpleNamespace(**nothing)
    record.reward_equity_change = np.array([0.5, -2.0, 0.0])
    summed = step_metrics(record)["reward/absolute_equity_change"]
    np.testing.assert_allclose(summed, [0.5, 2.0, 0.0])


COMMENT = "# Calibration of account.position_size_pct\n#   chosen 0.31\n#   because\n"


def test_a_choice_changes_one_number_of_a_file_and_keeps_all_its_comments(tmp_path):
    path, source = tmp_path / "chosen.yaml", tmp_path / "source.yaml"
    source.write_text(SMOKE.read_text().partition("\n# Calibration of")[0])  # no evidence yet
    base = config.load(file=source)
    choice.write(path, base, source, {"account.position_size_pct": 0.31}, COMMENT)
    before, after = source.read_text().splitlines(), path.read_text().splitlines()
    now = f"position_size_pct: {base.account.position_size_pct:g}"
    assert after[: len(before)] == [line.replace(now, "position_size_pct: 0.31") for line in before]
    assert path.read_text().endswith(COMMENT)
    expected = dataclasses.replace(
        base, account=dataclasses.replace(base.account, position_size_pct=0.31)
    )
    assert config.load(file=path) == expected


def test_another_calibration_of_the_knob_replaces_the_evidence_of_the_last(tmp_path):
    path = tmp_path / "chosen.yaml"
    shutil.copy(SMOKE, path)
    for value in (0.31, 0.29):
        comment = COMMENT.replace("0.31", str(value))
        base = config.load(file=path)
        choice.write(path, base, path, {"account.position_size_pct": value}, comment)
    base = config.load(file=path)
    other = "# Calibration of reward.reward_scaling\n#   chosen 0.08\n"
    choice.write(path, base, path, {"reward.reward_scaling": 0.08}, other)
    text = path.read_text()
    assert text.count("# Calibration of") == 2
    assert "0.31" not in text
    loaded = config.load(file=path)
    assert loaded.reward.reward_scaling == 0.08
    assert loaded.account.position_size_pct == 0.29


@pytest.mark.parametrize(
    "text",
    [
        "account:\n  allow_short: false\n",
        "account: {allow_short: false}\n",
        "account.allow_short: false\n",
        "account:\nnum_envs: 16\n",
        "network:\n  net_arch:\n  - 16\n  - 16\n",
        "position_size_pct: 0.2  # short\n",
        "# nothing but\nseed: 3",
    ],
)
def test_a_choice_is_read_back_whatever_the_file_looks_like(tmp_path, text):
    file, path = tmp_path / "base.yaml", tmp_path / "deep.yaml"
    file.write_text(text)
    asked = {"num_envs": 64, "network": {"net_arch": [8, 8]}, "simulator": {"preset": "hard"}}
    base = config.resolve(config.read_yaml(file), config.read_dict(asked))
    choice.write(path, base, file, {"account.position_size_pct": 0.125}, COMMENT)
    wanted = config.to_dict(base)
    wanted["account"]["position_size_pct"] = 0.125
    found = config.to_dict(config.load(file=path))
    assert found | {"seed": 0} == wanted | {"seed": 0}
    assert path.read_text().endswith(COMMENT)
    assert sorted(tmp_path.iterdir()) == [file, path]


def test_a_choice_without_a_file_says_only_what_is_not_by_default(tmp_path):
    path = tmp_path / "chosen.yaml"
    base = config.load({"num_envs": 16, "seed": 4})
    choice.write(path, base, None, {"reward.reward_scaling": 0.07}, COMMENT)
    assert path.read_text() == f"num_envs: 16\n\nreward:\n  reward_scaling: 0.07\n\n{COMMENT}"


def test_the_command_trains_plays_and_writes_a_configuration(tmp_path, capsys):
    flags = (
        *TINY, *outputs(tmp_path), "--config", SMOKE, "--target-band", "-40", "40", "--seeds", "3",
        "--points", "2", "--confirmations", "0", "--episodes", "16", "--name", "cal",
        "--between", "0.125", "0.5",
    )  # fmt: skip
    status, out, err = run(capsys, "calibrate", *flags)
    assert status == 0, err
    assert "episode reward 0 ± 20" in out
    directory = tmp_path / "runs" / "cal"
    figure = (directory / "calibration.png").read_bytes()
    assert figure.startswith(b"\x89PNG")
    path = directory / "calibrated.yaml"
    loaded = config.load(file=path)
    assert loaded.account.position_size_pct in (0.125, 0.5)
    assert (loaded.num_envs, loaded.ppo.n_steps, loaded.simulator.preset) == (8, 16, "easy")
    text = path.read_text()
    for words in (
        "seeds of round 0: 2000000000 to 2000000002", "--target-band -40 40", "jax ", "16 episodes",
        "python -m jules_jax.calibrate", *(directory / "calibration.txt").read_text().split("\n")
    ):  # fmt: skip
        assert words in text
    rewards = [float(line.split()[3]) for line in text.splitlines() if re.match(r"# +0\.\d", line)]
    assert len(rewards) == 2


@pytest.mark.long
def test_the_command_turns_an_edge_and_confirms_it_on_new_seeds(tmp_path, capsys):
    flags = (
        *TINY, *outputs(tmp_path), "--target-band", "-400", "400", "--points", "2",
        "--episodes", "16", "--name", "cal", "--key", "edge",
    )  # fmt: skip
    status, _, err = run(capsys, "calibrate", *flags)
    assert status in (0, 1), err
    runs = {path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()}
    assert {"cal", "cal-round-0-0", "cal-round-0-1"} <= runs
    if status == 0:
        assert "cal-round-1" in runs
        chosen = config.load(file=tmp_path / "runs" / "cal" / "calibrated.yaml")
        assert 9 <= chosen.simulator.mispricing_sd_bp <= 36


BAD_FLAGS = {
    "nothing to aim at": ((), "one of --target-band LOW HIGH and --target-share SHARE"),
    "both": (("--target-band", "4", "6", "--target-share", "0.1"), "expected one of --target-band"),
    "one end": (("--target-band", "4"), "--target-band is '4', expected two numbers"),
    "the wrong way": (("--target-band", "6", "4"), "the smaller one first"),
    "no number": (("--target-share", "some"), "--target-share is 'some', expected a number"),
    "too much": (("--target-share", "5"), "expected a number above 0 and below 1"),
    "two seeds": (("--target-band", "4", "6", "--seeds", "2"), "--seeds is 2, expected at least 3"),
    "a value not allowed": (
        ("--target-band", "4", "6", "--between", "0.5", "2"),
        "account.position_size_pct in the range of values to try, see --between, is 2.0",
    ),
    "no range": (
        ("--target-band", "4", "6", "--key", "simulator.reversion_strength"),
        "which spans no range: expected one in --between",
    ),
    "a place to write to": (("--target-band", "4", "6", "--write", "tests"), "is a directory"),
}


@pytest.mark.parametrize(("flags", "words"), BAD_FLAGS.values(), ids=BAD_FLAGS.keys())
def test_a_bad_flag_ends_in_one_sentence_before_anything_is_trained(flags, words, tmp_path, capsys):
    status, _, err = run(capsys, "calibrate", *TINY, "--name", "x", *outputs(tmp_path), *flags)
    assert status == 2
    assert err.startswith("error: ") and len(err.strip().splitlines()) == 1
    assert words in err
    assert not list(tmp_path.iterdir())


def test_a_name_in_use_is_refused(tmp_path, capsys):
    (tmp_path / "runs" / "x").mkdir(parents=True)
    flags = ("--name", "x", "--target-band", "4", "6")
    status, _, err = run(capsys, "calibrate", *TINY, *outputs(tmp_path), *flags)
    assert status == 2
    assert "exists already; choose another --name" in err


@pytest.mark.parametrize(("status", "then"), [(0, 143), (130, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_calibration_that_is_stopped_has_not_succeeded(
    status, then, tmp_path, capsys, monkeypatch
):
    def stopped(settings):
        raise Stopped("python -m jules_jax.train --resume x-round-0 goes on", status)

    monkeypatch.setattr("jules_jax.training.loop.train", stopped)
    command = [*TINY, "--target-band", "4", "6", *outputs(tmp_path), "--name", "x"]
    got, _, err = run(capsys, "calibrate", *command)
    assert got == then
    assert "a calibration does not go on" in err and "--resume" not in err


def test_a_calibration_does_not_take_a_name_whose_rounds_are_there(tmp_path, capsys):
    (tmp_path / "checkpoints" / "x-round-1").mkdir(parents=True)
    places = ("--runs-dir", str(tmp_path / "runs"))
    places += ("--checkpoint-dir", str(tmp_path / "checkpoints"))
    got, _, err = run(capsys, "calibrate", *TINY, "--target-band", "4", "6", *places, "--name", "x")
    assert got == 2
    assert "x-round-1 exists already; choose another --name" in err


def test_a_figure_shows_every_trial_and_the_choice():
    made = [doctored(0.2, 0), doctored(0.3, 0), doctored(0.25, 1)]
    responses = tuple(trial.reward for trial in made)
    outcome = Outcome(responses, responses[-1], True)
    knob = knobs.find("position_size_pct", config.Config())
    drawing = report.figure(made, outcome, Target(5.0, 0.5), knob, lambda t: t.reward, "reward")
    labels = [text.get_text() for text in drawing.axes[0].get_legend().get_texts()]
    assert "chosen: 0.25" in labels
    assert len(drawing.axes) == 3
