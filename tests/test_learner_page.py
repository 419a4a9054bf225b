"""docs/learner.md says what is so: its tests exist, its commands and settings are real.

So do those of the tables of docs/determinism.md.
"""

import ast
import re
import shlex
from pathlib import Path

import pytest

from jules_jax import config, flags, train

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "learner.md").read_text(encoding="utf-8")
CONTRACT = (ROOT / "docs" / "determinism.md").read_text(encoding="utf-8")
CLAIMS = [line for line in (PAGE + CONTRACT).splitlines() if "`::" in line or ".py::" in line]
COMMANDS = re.findall(
    r"^(python -m [\w.]+|make \w+|python benchmarks/\S+)(.*)$", PAGE, re.MULTILINE
)


@pytest.mark.parametrize("row", CLAIMS)
def test_every_claim_names_tests_that_exist(row):
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
    assert named
    for file, test in named:
        body = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8")).body
        assert test in [getattr(node, "name", "") for node in body], f"{file}::{test}"


def test_settings_named_on_the_page_exist():
    named = set(re.findall(r"`((?:ppo|network|population)\.\w+)", PAGE))
    assert len(named) >= 4
    assert named <= set(config.PARAMETERS)


@pytest.mark.parametrize("command", [rest for what, rest in COMMANDS if what.endswith(".train")])
def test_training_commands_have_flags_that_are_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    argv = shlex.split(command.replace("sweep.yaml", str(tmp_path / "sweep.yaml")))
    argv = [word for word in argv if word != "\\"]
    flags.parse(argv, program="train", summary="", switches=train.SWITCHES, options=train.OPTIONS)


def test_images_and_benchmarks_on_the_page_are_in_the_repository():
    for image in re.findall(r"\]\((images/\S+)\)", PAGE):
        assert (ROOT / "docs" / image).is_file(), image
    modules = re.findall(r"python -m (benchmarks[\w.]*)", PAGE)
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
