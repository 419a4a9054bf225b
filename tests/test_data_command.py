"""`python -m jules_jax.data`, as a newcomer types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from jules_jax import config
from tests.test_commands import run
from tests.tiny import bars_frame, write_bars


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve sessions of an hour each, one a minute."""
    return write_bars(tmp_path_factory.mktemp("bars") / "ABC_1min.csv")


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "data")
    assert status == 0
    for name in ("check", "build", "prove-causal", "stylised-facts", "fit"):
        assert f"  {name} " in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("chek", "x.csv"), "unknown command 'chek'"),
        (("check",), "needs a PATH"),
        (("check", "nowhere.csv"), "nowhere.csv"),
        (("build", "{bars}"), "--out is missing"),
        (("prove-causal", "{bars}", "--moments", "many"), "--moments is 'many'"),
        (("fit", "{bars}", "--symbol", "XYZ"), "XYZ"),
        (("check", "{bars}", "--bar-labell", "end"), "bar_label"),
    ],
)
def test_bad_words_end_in_one_sentence(
    words: tuple[str, ...], said: str, bars: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, "data", *(word.format(bars=bars) for word in words))
    assert status == 2
    assert len(err.strip().splitlines()) == 1 and said in err


def test_check_tells_what_it_found_and_writes_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = bars_frame()
    frame.loc[7, "close"] = float("nan")
    frame.loc[[100, 101]] = frame.loc[[101, 100]].to_numpy()
    path, page = tmp_path / "ABC.csv", tmp_path / "report.html"
    frame.to_csv(path, index=False)
    status, out, _ = run(capsys, "data", "check", str(path), "--report", str(page))
    assert status == 0
    assert "ABC: 12 sessions" in out
    assert "1 row with a price that is" in out and "dropped" in out and "line 9" in out
    assert "out of order" in out
    assert "ABC" in page.read_text(encoding="utf-8")


def test_check_ends_as_training_would_where_volume_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ABC.csv"
    bars_frame().drop(columns="volume").to_csv(path, index=False)
    status, out, err = run(capsys, "data", "check", str(path))
    assert status == 2
    assert "ABC: 12 sessions" in out and "no column volume" in err and "--market.adv" in err
    assert run(capsys, "data", "check", str(path), "--market.adv", "1e6")[0] == 0


def test_a_built_dataset_is_read_as_its_files_are_and_neither_checked_nor_built_again(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out_dir = str(tmp_path / "set")
    status, out, _ = run(capsys, "data", "build", str(bars), "--out", out_dir)
    assert status == 0 and "ABC" in out and "720 with a bar" in out
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["symbols"][0]["valid"] == 720
    for words in (("check", out_dir), ("build", out_dir, "--out", str(tmp_path / "other"))):
        status, _, err = run(capsys, "data", *words)
        assert status == 2 and "is a built dataset" in err


def test_prove_causal_holds_for_a_file(bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--moments", "3")
    status, out, _ = run(capsys, "data", "prove-causal", str(bars), *words)
    assert status == 0
    assert out.startswith("causal: 3 moments")


def test_fit_prints_a_config_that_simulates(
    tmp_path: Path, bars: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--calendar", "regular", "--session-close", "10:30")
    status, out, _ = run(capsys, "data", "fit", str(bars), *words)
    assert status == 0
    (tmp_path / "like_abc.yaml").write_text(out, encoding="utf-8")
    settings = config.load(file=tmp_path / "like_abc.yaml")
    assert settings.simulator.bars_per_session == 60
    assert settings.simulator.noise_bp == pytest.approx(5.0, rel=0.2)  # as `bars_frame` draws them
    assert yaml.safe_load(out)["simulator"]["start_price"] == pytest.approx(100, rel=0.1)
