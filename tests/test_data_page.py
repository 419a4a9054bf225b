"""docs/data.md says what is so: its formats, examples, findings, presets, flags and commands."""

from __future__ import annotations

import math
import re
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from jules_jax import config, data, evaluate, flags, train
from jules_jax.errors import InputError
from jules_jax.market import instruments, readers, stylised_facts
from jules_jax.market.bars import Bars
from jules_jax.market.quality import inspection

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "data.md").read_text(encoding="utf-8")

THE_BAR = (100.00, 100.16, 99.96, 100.08)
THE_START = pd.Timestamp("2025-11-03 09:30", tz="America/New_York").value
THE_VOLUME = 364


def table(first_heading: str) -> list[list[str]]:
    """The cells of the tables that begin with `| first_heading |`, without their headings."""
    found, inside = [], False
    for line in PAGE.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        inside = inside or cells[0] == first_heading
        if inside and cells[0] != first_heading and set(cells[0]) != {"-"}:
            found.append(cells)
    return found


def code(cell: str) -> str:
    return cell.strip("`")


FORMATS = [row for row in table("format") if len(row) == 4]
CONVENTIONS = [row for row in table("format") if len(row) == 5]
COMMANDS = re.findall(r"^(?:\$ )?python -m (.*)$", PAGE, flags=re.MULTILINE)


def allowed(parameter: str) -> set[str]:
    """The names a parameter may take."""
    return {*config.PARAMETERS[parameter].metadata["allowed"].removeprefix("one of ").split(", ")}


@pytest.mark.parametrize("rows", [FORMATS, CONVENTIONS], ids=["examples", "conventions"])
def test_both_tables_of_formats_name_every_format_once(rows: list[list[str]]) -> None:
    names = [code(row[0]) for row in rows]
    assert len(names) == len({*names})
    assert {*names} == allowed("market.format") - {"auto"}


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: code(row[0]))
def test_the_example_of_a_format_is_read_as_the_bar_the_page_says(
    row: list[str], tmp_path: Path
) -> None:
    name, file, header, line = map(code, row)
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    text = "".join(f"{one}\n" for one in (header, line) if one)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("member.csv", text)
    elif path.suffix == ".zst":
        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write(text.encode())
    else:
        path.write_text(text, encoding="utf-8")

    (found,) = readers.find(str(tmp_path), config.Market())
    bars = readers.read_symbol(found, config.Market())
    assert (found.symbol, found.format) == ("AAA", name)
    assert [int(t) for t in bars.time] == [THE_START]
    assert (*bars.open, *bars.high, *bars.low, *bars.close) == pytest.approx(THE_BAR, rel=1e-12)
    assert bars.volume is not None
    assert bars.volume.tolist() == [0 if name == "histdata" else THE_VOLUME]
    if name == "binance":
        assert bars.signed_volume is not None
        assert bars.signed_volume.tolist() == [2 * 200 - THE_VOLUME]


@pytest.mark.parametrize("row", CONVENTIONS, ids=lambda row: code(row[0]))
def test_zone_and_calendar_of_a_format_are_those_of_its_reader(row: list[str]) -> None:
    said = readers.formats.FORMATS[code(row[0])].convention
    zone = {"America/New_York": "New York"}.get(said.timezone, said.timezone)
    assert row[1].startswith(zone)
    assert row[2] == said.calendar
    assert said.exact_prices == row[3].startswith("from the decimals")


def test_the_table_of_findings_names_every_kind_in_order() -> None:
    assert [code(row[0]) for row in table("finding")] == [*inspection.KINDS]


def test_thresholds_of_the_findings_are_those_of_the_code() -> None:
    done = {code(row[0]): row[2] for row in table("finding")}
    for kind in ("bad price", "bad volume", "high below low"):
        assert f"above {100 * inspection.TOLERATED:.0f} %" in done[kind]
    assert f"above {100 * inspection.SWAPPED:.0f} %" in done["range widened"]


def test_the_table_of_presets_has_every_preset_and_value() -> None:
    heading = next(line for line in PAGE.splitlines() if line.startswith("| parameter |"))
    presets = [code(cell.strip()) for cell in heading.split("|")[2:-1]]
    assert {*presets} == {*config.PRESETS}
    rows = {code(row[0]): row[1:] for row in table("parameter")}
    assert {*rows} - {"for"} == {*config.PRESETS["easy"]}
    for key, values in rows.items():
        for preset, text in zip(presets, values, strict=True):
            expected = config.PRESETS[preset].get(key)
            assert key == "for" or text == (
                expected if isinstance(expected, str) else f"{expected:g}"
            )


def test_the_battery_has_the_lines_and_bands_of_the_page() -> None:
    checks = stylised_facts.battery(stylised_facts.measure(random_bars()), 0.0)
    rows = {code(row[0]): row[1] for row in table("line of the battery")}
    assert [*rows] == [check.name for check in checks]
    for check in checks:
        if check.name != "ACF of r, 1":  # its band depends on the bars
            low, high = (
                float(end.replace("−", "-").replace("∞", "inf"))
                for end in rows[check.name].split(" to ")
            )
            assert (low, high) == (check.low, check.high), check.name


def random_bars(sessions: int = 4, slots: int = 390) -> Bars:
    """Bars of a random walk, for the names of facts and not their values."""
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 3e-4, sessions * slots)))
    slot = np.tile(np.arange(slots), sessions)
    return Bars(
        open=np.roll(close, 1),
        high=close,
        low=close,
        close=close,
        volume=rng.integers(1, 1000, close.size).astype(float),
        session=np.repeat(np.arange(sessions), slots),
        bar_of_session=slot,
        minute=slot,
        session_length=np.full(close.size, slots),
        valid=np.ones(close.size, bool),
        bar_seconds=60,
        bars_per_session=slots,
    )


def known_flag(name: str, own: set[str]) -> bool:
    try:
        config.find_key(name, "in the page")
    except InputError:
        return name in own
    return True


def test_every_flag_named_is_a_parameter_or_a_commands_own() -> None:
    own = {"config", "dry-run"}
    for command in data.COMMANDS.values():
        own |= {*command.options, *command.switches}
    ours = "\n".join(line for line in PAGE.splitlines() if "benchmarks." not in line)
    named = {*re.findall(r"(?<![\w-])--([a-z][\w.-]*\w)", ours)}
    named -= {"help-all"}  # of every command
    assert len(named) > 25
    assert [name for name in sorted(named) if not known_flag(name, own)] == []


def test_every_data_command_shown_is_accepted() -> None:
    shown = [shlex.split(line, comments=True) for line in COMMANDS]
    ours = [words[1:] for words in shown if words[0] == "jules_jax.data"]
    assert {words[0] for words in ours} == {*data.COMMANDS}
    for words in ours:
        words = words[: words.index(">")] if ">" in words else words
        flags.parse_subcommand(words, program="jules_jax.data", known=data.COMMANDS)


def test_other_commands_shown_exist() -> None:
    modules = {shlex.split(line, comments=True)[0] for line in COMMANDS} - {"jules_jax.data"}
    known = {module.__name__ for module in (train, evaluate)}
    for name in modules - known:
        assert (DOCS.parent / Path(*name.split("."))).with_suffix(".py").is_file(), name


def test_numbers_in_text_are_those_of_the_code() -> None:
    assert f"a simulated year ({stylised_facts.samples.SESSIONS} sessions)" in PAGE
    assert math.isclose(config.Market().market_memory, 4.0) and "(GiB on a device, 4 by" in PAGE
    assert config.Splits().embargo_sessions == 1 and "`--embargo-sessions` (1)" in PAGE
    assert config.Splits().purge_sessions == 0 and "`--purge-sessions` (0)" in PAGE


def test_the_example_of_symbols_is_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "symbols.yaml").write_text(text)
    read = instruments.read(tmp_path / "symbols.yaml")
    assert read["AAA"] == instruments.Instrument(tick=0.01, spread_bps=2.0, weight=2.0)
    assert read["BBB"].adv == 1_500_000 and read["BBB"].calendar == "XNYS"


def test_every_picture_shown_is_there() -> None:
    shown = {*re.findall(r"\]\((images/[^)]+)\)", PAGE)}
    assert shown >= {f"images/{name}.png" for name in ("bar-label", "presets", "stylised-facts")}
    assert [name for name in shown if not (DOCS / name).is_file()] == []
