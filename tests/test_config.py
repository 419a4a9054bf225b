"""The configuration: one tree, merged in one order, validated once, told in sentences."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jules_jax import config
from jules_jax.config import Config
from jules_jax.errors import InputError
from jules_jax.flags import COMMON, Parsed, parse

REPOSITORY = Path(__file__).resolve().parents[1]


def parsed(*argv: str, **command) -> Parsed:
    return parse(argv, program="jules_jax.train", summary="Train an agent.", **command)


def refusal(*argv: str) -> str:
    with pytest.raises(InputError) as error:
        parsed(*argv)
    return str(error.value)


@pytest.fixture
def yaml_file(tmp_path):
    """Writes a YAML file and returns its path as text."""

    def write(text: str, name: str = "some.yaml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


# --- the order of layers ---------------------------------------------------------------------


def test_no_flags_mean_the_defaults():
    assert parsed().config == config.load() == Config()


def test_a_file_overrides_defaults_and_a_flag_overrides_the_file(yaml_file):
    path = yaml_file("num_envs: 64\nppo:\n  n_steps: 150\n  gamma: 0.5\n")
    result = parsed("--config", path, "--ppo.n-steps", "200").config
    assert (result.num_envs, result.ppo.n_steps, result.ppo.gamma) == (64, 200, 0.5)
    assert result.ppo.clip_range == Config().ppo.clip_range


def test_a_preset_ranks_below_the_values_named_beside_it(yaml_file):
    assert parsed("--preset", "null").config.simulator.mispricing == "martingale"
    both = parsed("--preset", "null", "--mispricing", "ou").config.simulator
    assert (both.preset, both.mispricing) == ("null", "ou")
    path = yaml_file("simulator: {preset: null, mispricing: ou}\n")
    assert parsed("--config", path).config.simulator.mispricing == "ou"


def test_a_preset_on_the_command_line_outranks_a_resolved_file(yaml_file):
    """Else `--preset null` on a finished run's config would be no control at all."""
    easy = yaml_file(config.to_yaml(Config()), "easy.yaml")
    assert parsed("--config", easy, "--preset", "null").config.simulator.mispricing == "martingale"
    null = yaml_file(config.to_yaml(config.load({"preset": "null"})), "null.yaml")
    assert parsed("--config", null, "--preset", "easy").config == Config()


def test_presets_set_the_same_parameters_and_the_default_one_is_the_defaults():
    keys = {frozenset(values) for values in config.PRESETS.values()}
    assert len(keys) == 1
    defaults = dataclasses.asdict(config.Simulator())
    assert config.PRESETS["easy"].items() <= defaults.items()


def test_settings_of_a_checkpoint_rank_below_the_config_file_and_the_flags(yaml_file):
    checkpoints = {"some/dir": {"seed": 1, "num_envs": 16, "name": "base"}}
    path = yaml_file("num_envs: 32\nname: file\n")
    result = parsed(
        *("--checkpoint", "some/dir", "--config", path, "--name", "flag"),
        options={"checkpoint": ""},
        base=lambda extras: config.read_dict(checkpoints[extras["checkpoint"]]),
    )
    assert (result.config.seed, result.config.num_envs, result.config.name) == (1, 32, "flag")


# --- reading values --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "key", "value"),
    [
        (["--num-envs", "4096"], "num_envs", 4096),
        (["--num_envs=4096"], "num_envs", 4096),
        (["--total-timesteps", "1e8"], "total_timesteps", 100_000_000),
        (["--total-timesteps", "3e9"], "total_timesteps", 3_000_000_000),
        (["--ppo.learning-rate", "3e-4"], "ppo.learning_rate", 3e-4),
        (["--learning_rate=3E-4"], "ppo.learning_rate", 3e-4),
        (["--learning-rate-end", "-1"], "ppo.learning_rate_end", -1.0),
        (["--market.adv", "5_000"], "market.adv", 5000.0),
        (["--net-arch", "32,16"], "network.net_arch", (32, 16)),
        (["--net-arch", "[32, 16, 8]"], "network.net_arch", (32, 16, 8)),
        (["--allow-short", "false"], "account.allow_short", False),
        (["--terminate-on-hard"], "safeguards.terminate_on_hard", True),
        (["--terminate-on-hard", "--seed", "3"], "safeguards.terminate_on_hard", True),
        (["--data", "some=file.csv"], "market.data", "some=file.csv"),
        (["--data="], "market.data", ""),
        (["--seed", "1", "--seed", "2"], "seed", 2),
    ],
)
def test_a_flag_is_read_in_the_type_of_its_parameter(argv, key, value):
    section, _, leaf = key.rpartition(".")
    result = parsed(*argv).config
    found = getattr(getattr(result, section) if section else result, leaf)
    assert found == value
    assert type(found) is type(value)


def test_yaml_scalars_mean_what_they_look_like(yaml_file):
    """PyYAML's own rules make 5e-4 and 1e8 strings, 16:00 the number 960 and null nothing."""
    text = """
    total_timesteps: 1e8
    market: {session_open: 10:00, session_close: 16:00, calendar: 24/7, data: }
    simulator: {preset: null, enable_bid_ask_bounce: False}
    network: {net_arch: [32, 16]}
    ppo: {learning_rate: 5e-4}
    reward:
    """
    result = parsed("--config", yaml_file(text)).config
    assert result.total_timesteps == 100_000_000
    assert result.market == config.Market(
        session_open="10:00", session_close="16:00", calendar="24/7"
    )
    assert (result.simulator.preset, result.simulator.enable_bid_ask_bounce) == ("null", False)
    assert (result.network.net_arch, result.ppo.learning_rate) == ((32, 16), 5e-4)


def test_a_program_may_give_nested_or_dotted_values():
    nested = config.load({"ppo": {"n_steps": 250}, "num_envs": 8})
    dotted = config.load({"ppo.n_steps": 250, "num_envs": 8.0})
    assert nested == dotted
    assert nested.ppo.n_steps == 250


# --- writing and reading back ----------------------------------------------------------------

CONFIGS = st.builds(
    Config,
    seed=st.integers(0, 2**31 - 1),
    name=st.sampled_from(["", "null", "1e8", "0123", "true", "2024-07-22"]),
    runs_dir=st.text(st.characters(codec="utf-8")),
    market=st.builds(config.Market, session_close=st.sampled_from(["16:00", "10:01"])),
    network=st.builds(
        config.Network, net_arch=st.lists(st.integers(1, 512), min_size=1).map(tuple)
    ),
    ppo=st.builds(
        config.PPO,
        learning_rate=st.floats(1e-30, 1e30),
        gamma=st.floats(0, 1),
    ),
)


@settings(max_examples=40, deadline=None)
@given(CONFIGS)
@example(Config(runs_dir="a\x85b"))  # a line break to YAML, unless escaped
def test_a_written_config_reads_back_exactly(tmp_path_factory, original):
    path = tmp_path_factory.mktemp("round_trip") / "config.yaml"
    path.write_text(config.to_yaml(original), encoding="utf-8")
    assert config.load(file=path) == original
    assert config.load(json.loads(json.dumps(config.to_dict(original)))) == original


def test_print_config_prints_the_resolved_config_and_exits_0(capsys, yaml_file):
    with pytest.raises(SystemExit) as exit_:
        parsed("--preset", "null", "--num-envs", "8", "--print-config")
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["simulator"]["mispricing"] == "martingale"
    expected = config.load({"preset": "null", "num_envs": 8})
    assert config.load(file=yaml_file(printed)) == expected


# --- derived values --------------------------------------------------------------------------


def test_batch_size_and_updates_follow_from_lanes_and_steps():
    result = config.load({"num_envs": 384, "total_timesteps": 384 * 128 * 40})
    assert (result.batch_size, result.num_updates) == (12_288, 40)
    one_more = config.load({"num_envs": 384, "total_timesteps": 384 * 128 * 40 + 1})
    assert one_more.num_updates == 41


@pytest.mark.parametrize(
    ("num_envs", "given", "groups"),
    [(384, 0, 8), (2048, 0, 8), (80, 0, 4), (24, 0, 2), (4, 0, 1), (12, 0, 1), (384, 3, 3)],
)
def test_shuffle_groups_are_the_most_that_divide_a_minibatch_unless_set(num_envs, given, groups):
    result = config.load({"num_envs": num_envs, "shuffle_groups": given})
    assert result.shuffle_groups == groups


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--num-env", "3"], "unknown key 'num-env' on the command line, nearest 'num_envs'"),
        (["--ppo.learning-rte", "3"], "'ppo.learning-rte' nearest 'ppo.learning_rate'"),
        (["--market.n-steps", "3"], "'market.n-steps' nearest 'ppo.n_steps'"),
        (["--dry-rn"], "'dry-rn' nearest 'dry_run'"),
        (["--adv", "3"], "adv ambiguous market.adv or simulator.adv"),
        (["--ppo", "3"], "ppo section ppo.n_steps"),
        (["--seed"], "--seed no value, expected a whole number"),
        (["--seed", "--name", "x"], "--seed no value, expected a whole number"),
        (["--config"], "--config no value"),
        (["--dry-run=yes"], "--dry-run 'yes', expected no value"),
        (["seed", "3"], "unexpected 'seed' on the command line, expected a flag"),
        (["-n", "3"], "unexpected '-n' expected a flag"),
    ],
)
def test_a_flag_that_does_not_exist_or_is_malformed_is_named(argv, words):
    with pytest.raises(InputError) as error:
        parsed(*argv, switches={"dry-run": "do nothing"})
    sentence = str(error.value)
    assert all(word.strip(",") in sentence for word in words.split()), sentence
    assert "\n" not in sentence


FOUND = {
    "": "empty",
    "-3e-4": "-0.0003",
    "3e9": "3000000000",
    "1e300": "1e+300",
    "128,0": "(128, 0)",
}
"""How some values are told once they have been read."""


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", "many", "a whole number of at least 0"),
        ("seed", "1.5", "a whole number of at least 0"),
        ("seed", "-1", "a whole number of at least 0"),
        ("num_envs", "0", "a whole number of at least 1"),
        ("num_envs", "", "a whole number of at least 1"),
        ("num_envs", "3e9", "a finite number of 32 bits"),
        ("ppo.n_steps", "0", "a whole number of at least 1"),
        ("ppo.learning_rate", "-3e-4", "a number above 0"),
        ("ppo.learning_rate", "nan", "a finite number of 32 bits"),
        ("ppo.learning_rate", "inf", "a finite number of 32 bits"),
        ("ppo.learning_rate", "1e300", "a finite number of 32 bits"),
        ("ppo.learning_rate", "fast", "a number above 0"),
        ("ppo.learning_rate_end", "-0.5", "at least 0, or -1"),
        ("ppo.gamma", "1.01", "a number from 0 to 1"),
        ("ppo.gae_lambda", "-0.01", "a number from 0 to 1"),
        ("fills.impact_decay", "1", "at least 0 and below 1"),
        ("fills.temporary_impact_decay", "1.5", "at least 0 and below 1"),
        ("fills.spread_shape", "round", "one of flat, intraday"),
        ("fills.lambda_source", "guess", "one of structural, rolling"),
        ("splits.train_fraction", "1", "above 0 and below 1"),
        ("market.calendar", "", "auto, 24/7, 24/5, regular"),
        ("market.bar_label", "middle", "one of start, end"),
        ("market.session_open", "25:00", "a time HH:MM"),
        ("market.session_open", "9:30", "a time HH:MM"),
        ("market.timezone", "America/New_Yrok", "a time zone such as"),
        ("simulator.preset", "esay", "one of easy, null"),
        ("simulator.mispricing", "random", "one of ou, martingale"),
        ("simulator.innovation_dof", "2", "above 2"),
        ("account.position_size_pct", "25", "above 0 and at most 1"),
        ("safeguards.hard_dd_pct", "1", "above 0 and below 1"),
        ("safeguards.terminate_on_hard", "maybe", "true or false"),
        ("network.net_arch", "128,wide", "widths"),
        ("network.net_arch", "128,0", "widths"),
        ("network.net_arch", "", "widths"),
        ("network.matmul_precision", "low", "one of default, high, highest, bf16"),
        ("name", "../elsewhere", "letters, digits"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_named_with_what_was_expected(key, value, expected):
    sentence = refusal(f"--{key}={value}")
    assert sentence.startswith(f"{key} on the command line is ")
    assert f" is {FOUND[value]}, " in sentence if value in FOUND else value in sentence
    assert expected in sentence


@pytest.mark.parametrize("value", [True, None, {"a": 1}, [1], "x"])
def test_a_program_s_value_of_the_wrong_type_is_refused(value):
    with pytest.raises(InputError, match=r"num_envs in the given settings is .* a whole number"):
        config.load({"num_envs": value})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_envs": 10}, "num_envs is 10, multiple num_minibatches, 4"),
        ({"n_steps": 1001}, "ppo.n_steps is 1001, max_steps_in_episode, 1000"),
        ({"shuffle_groups": 5}, "ppo.shuffle_groups is 5, divisor 512"),
        ({"devices": 3}, "devices is 3, divisor 8 shuffle_groups"),
        ({"soft_dd_pct": 0.04}, "soft_dd_pct is 0.04, below hard_dd_pct, 0.04"),
        ({"train_fraction": 0.85}, "train_fraction validation_fraction sum to 1, below 1"),
        (
            {"calendar": "regular", "session_open": "16:30"},
            "session_open is 16:30, before session_close, 16:00",
        ),
        ({"refresh_updates": 7}, "refresh_updates is 7, at least 8 n_steps"),
        ({"sessions": 4}, "sessions 1560 bars, 1780"),
        ({"num_envs": 2**28}, "num_envs 34359738368, at most 2147483647"),
    ],
)
def test_values_that_do_not_fit_one_another_are_named(values, words):
    with pytest.raises(InputError) as error:
        config.load(values)
    sentence = str(error.value)
    assert all(word in sentence for word in words.split()), sentence
    assert "\n" not in sentence


def test_rules_of_the_simulated_market_do_not_bind_real_bars():
    assert config.load({"data": "bars.csv", "refresh_updates": 1, "sessions": 1}).market.data


def test_relations_hold_at_their_boundary():
    config.load({"n_steps": 1000, "refresh_updates": 1})
    longest = {"sessions": 5, "refresh_updates": 10, "max_steps_in_episode": 3 * 390 - 1}
    config.load(longest)
    with pytest.raises(InputError, match=r"simulator\.sessions"):
        config.load(longest | {"max_steps_in_episode": 3 * 390})


def test_an_unknown_key_in_a_file_is_named_with_file_line_and_nearest_key(yaml_file):
    path = yaml_file("seed: 1\nppo:\n  learning_rte: 5e-4\n")
    assert refusal("--config", path) == (
        f"unknown key 'ppo.learning_rte' in {path} line 3, "
        "the nearest valid key is 'ppo.learning_rate'"
    )


def test_a_bad_value_in_a_file_is_named_with_file_and_line(yaml_file):
    path = yaml_file("seed: 1\nppo:\n  n_steps: many\n")
    assert refusal("--config", path) == (
        f"ppo.n_steps in {path} line 3 is 'many', expected a whole number of at least 1"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("# nothing but a comment\n", "is empty"),
        ("just words\n", "has no keys"),
        ("- 1\n- 2\n", "has no keys"),
        ("ppo: [1, 2\nseed: 3\n", "line 2 is not valid YAML"),
        ("seed: 1\n---\nseed: 2\n", "is not valid YAML"),
        ("a: \x00\n", "is not valid YAML"),
        ("seed: 1\nnum_envs: 4\nseed: 2\n", "seed is set twice, in {path} line 1 and in {path}"),
        ("ppo: {gamma: 1}\nppo: {n_steps: 2}\n", "ppo is set twice"),
        ("ppo: {gamma: 1, gamma: 0.9}\n", "ppo.gamma is set twice|gamma is set twice"),
        ("num_envs: 4\nnum-envs: 8\n", "num_envs is set twice"),
        ("ppo: 3\n", "ppo in {path} line 1 is a section"),
        ("seed: {a: 1}\n", "seed in {path} line 1 is"),
        ("network: {net_arch: [[1], 2]}\n", "network.net_arch in {path} line 1 is"),
        ("pppo: {n_steps: 3}\n", "unknown key 'pppo' in {path} line 1, the nearest valid key is"),
    ],
)
def test_a_file_that_is_not_a_tree_of_settings_is_refused_in_a_sentence(yaml_file, text, words):
    path = yaml_file(text)
    sentence = refusal("--config", path)
    assert any(part.format(path=path) in sentence for part in words.split("|")), sentence
    assert "\n" not in sentence


def test_a_file_that_cannot_be_read_is_refused_in_a_sentence(tmp_path):
    missing = tmp_path / "missing.yaml"
    assert refusal("--config", str(missing)) == (
        f"cannot read config file {missing}: No such file or directory"
    )
    assert str(tmp_path) in refusal("--config", str(tmp_path))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00seed")
    assert "not text" in refusal("--config", str(tmp_path / "binary.yaml"))


# --- help and the command's own flags --------------------------------------------------------


def test_a_command_gets_its_own_switches_and_options_beside_the_config():
    command = {"switches": ("dry-run", "resume"), "options": {"checkpoint": "a directory"}}
    result = parsed("--dry-run", "--seed", "3", "--checkpoint", "some/dir", **command)
    assert result.extras == {"dry_run": True, "resume": False, "checkpoint": "some/dir"}
    assert result.config.seed == 3
    assert parsed(**command).extras == {"dry_run": False, "resume": False, "checkpoint": None}


def test_help_needs_neither_jax_nor_numpy_nor_yaml_and_less_than_a_second():
    script = (
        "import sys, time\n"
        "from jules_jax.flags import parse\n"
        "try:\n"
        "    parse(['--help'], program='jules_jax.train', summary='Train.')\n"
        "except SystemExit as error:\n"
        "    assert error.code == 0\n"
        "assert not {'jax', 'numpy', 'yaml', 'pandas'} & set(sys.modules)\n"
        "assert time.process_time() < 1.0\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "python -m jules_jax.train" in done.stdout


def help_of(capsys, flag: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        parsed("--num-envs", "none", flag, options={"checkpoint": "a directory of a run"})
    assert exit_.value.code == 0
    return capsys.readouterr().out


def test_help_shows_the_common_flags_with_defaults_and_the_command_s_own(capsys):
    text = help_of(capsys, "--help")
    assert 18 <= len(COMMON) <= 24
    assert all(f"--{key.rpartition('.')[2].replace('_', '-')} " in text for key in COMMON)
    assert "a directory of a run" in text
    assert "lanes: parallel episodes [2048]" in text
    assert "--gae-lambda" not in text


def test_help_all_shows_every_parameter_under_a_name_that_works(capsys):
    text = help_of(capsys, "--help-all")
    flags = {word[2:] for word in text.split() if word.startswith("--")}
    named = {config.find_key(flag, "") for flag in flags if flag not in OWN_FLAGS}
    leaves = {
        f"{top.name}.{leaf.name}" if dataclasses.is_dataclass(value) else top.name
        for top in dataclasses.fields(Config)
        for value in [getattr(Config(), top.name)]
        for leaf in (dataclasses.fields(value) if dataclasses.is_dataclass(value) else [top])
    }
    assert named == leaves
    assert max(map(len, text.splitlines())) <= 100


OWN_FLAGS = {"checkpoint", "config", "help", "help-all", "print-config"}


def test_the_types_of_all_parameters_can_be_read():
    """A parameter of a new type needs a converter; the defaults, as text, must read back."""
    text = {
        key: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for key, value in ((key, field.default) for key, field in config.PARAMETERS.items())
    }
    assert config.load(text) == Config()


# --- the configs of the repository -----------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda p: p.name
)
def test_every_config_of_the_repository_loads(path):
    assert config.load(file=path).num_updates >= 1


def test_the_smoke_config_is_forty_updates_of_384_lanes_on_the_easy_market():
    smoke = config.load(file=REPOSITORY / "configs" / "phase1_smoke.yaml")
    assert (smoke.num_envs, smoke.num_updates, smoke.ppo.n_epochs) == (384, 40, 4)
    assert smoke.total_timesteps == 1_966_080
    assert (smoke.ppo.ent_coef, smoke.account.position_size_pct) == (0.01, 0.294)
    assert smoke.simulator.preset == "easy"
