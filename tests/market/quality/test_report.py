"""The table by session, and the HTML report."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from html.parser import HTMLParser

import numpy as np
import pytest

from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.market.quality import Inspected, inspect
from jules_jax.market.quality import report as quality_report
from jules_jax.market.quality.session_table import SHOWN, session_table, table
from tests.market.raw_bars import MINUTE, sessions


@dataclass(frozen=True)
class Grid:
    """Slots `[G]` of whole New York sessions."""

    index: np.ndarray
    session: np.ndarray
    time: np.ndarray
    minute: np.ndarray
    bar_of_session: np.ndarray


def grid(times: np.ndarray, days: int, first: str = "2025-03-03") -> Grid:
    slots = sessions(first, days).time
    row = np.minimum(np.searchsorted(times, slots), times.size - 1)
    index = np.where(times[row] == slots, row, -1)
    minute = np.tile(np.arange(390), days)
    return Grid(index, np.repeat(np.arange(days), 390), slots, minute, minute)


def damaged() -> tuple[Inspected, Grid]:
    """Ten sessions: a gap of 3 in the second, a copy in the fourth, two bars without volume in the
    fifth, a blank close in the sixth, a spike and a bar before the open in the eighth.
    """
    raw = sessions()
    close, volume, low = raw.close.copy(), raw.volume.copy(), raw.low.copy()
    close[5 * 390 + 7], volume[4 * 390 + 1 : 4 * 390 + 3] = np.nan, 0.0
    low[7 * 390 + 200] *= 0.8
    times = raw.time.copy()
    times[7 * 390] -= 30 * MINUTE
    raw = replace(raw, close=close, volume=volume, low=low, time=times)
    kept = np.delete(np.arange(3900), np.arange(390 + 20, 390 + 23))
    rows = np.sort(np.append(kept, 3 * 390 + 50))
    inspected = inspect(raw.select(rows), config.Market())
    return inspected, grid(inspected.raw.time, 10)


def test_the_table_counts_what_each_session_has():
    result = session_table(*damaged(), 60)
    expected = {
        "bars": [390, 387, 390, 390, 390, 389, 390, 389, 390, 390],
        "gaps": [0, 3, 0, 0, 0, 1, 0, 1, 0, 0],
        "copies": [0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        "zero": [0, 0, 0, 0, 2, 0, 0, 0, 0, 0],
        "price": [0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        "spikes": [0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    }
    for heading, counts in result.counts.items():
        assert counts.tolist() == expected.get(heading, [0] * 10), heading
    assert result.outside["bars"] == 1 and sum(result.outside.values()) == 1
    assert result.date[0] == "2025-03-03" and result.date[-1] == "2025-03-14"


def test_only_sessions_with_something_to_say_are_printed():
    one = session_table(*damaged(), 60)
    text = table([one])
    dates = [line.split()[0] for line in text.splitlines() if line.lstrip().startswith("2025")]
    assert dates == ["2025-03-04", "2025-03-06", "2025-03-07", "2025-03-10", "2025-03-12"]
    assert "h<l" not in text and "stale" not in text
    total = next(line for line in text.splitlines() if line.lstrip().startswith("total"))
    assert total.split() == ["total", "3,896", "5", "1", "1", "2", "1"]
    assert all(f"- {sentence}." in text for sentence in one.sentences)
    everything = table([one], all_sessions=True).splitlines()
    assert sum(line.lstrip().startswith("2025") for line in everything) == 10


def test_of_many_sessions_the_worst_are_printed():
    raw = sessions(days=40)
    raw = raw.select(np.arange(raw.time.size) % 390 != 100)  # a gap in each session
    volume = raw.volume.copy()
    volume[25 * 389] = 0.0
    inspected = inspect(replace(raw, volume=volume), config.Market())
    one = session_table(inspected, grid(inspected.raw.time, 40), 60)
    text = table([one])
    assert f"… {40 - SHOWN} more sessions: --all prints them" in text
    assert one.date[25] in text
    shown = [line.split()[0] for line in text.splitlines() if line.lstrip().startswith("2025")]
    assert len(shown) == SHOWN and shown == sorted(shown)


def test_a_sound_symbol_has_nothing_to_report():
    inspected = inspect(sessions(days=3), config.Market())
    text = table([session_table(inspected, grid(inspected.raw.time, 3), 60)])
    assert text.splitlines()[0] == "ABC: 3 sessions, 2025-03-03 to 2025-03-05: nothing to report"


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "img":
            self.images.append(values["src"])
        self.links += [values[key] for key in ("href", "src") if key in values]

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_file_with_findings_and_plots(tmp_path):
    inspected, placement = damaged()
    named = replace(inspected, raw=replace(inspected.raw, symbol="A<B>"))
    silent = replace(inspected, raw=replace(inspected.raw, symbol="VIX", volume=None))
    reports = [quality_report.Report(one, placement, 60) for one in (named, silent)]
    quality_report.write(tmp_path / "report.html", reports)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    page = Page()
    page.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert len(page.images) == 2
    for image in page.images:
        kind, _, data = image.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG\r\n\x1a\n")
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "A<B>" in page.text and "VIX" in page.text
    for found in inspected.findings:
        assert found.detail in page.text and found.where[0] in page.text


def test_the_plots_show_the_bars_they_are_about():
    inspected, placement = damaged()
    figure = quality_report.figure(quality_report.Report(inspected, placement, 60))
    price, volume, gaps = figure.axes
    close, spikes = price.lines
    np.testing.assert_allclose(close.get_ydata(), inspected.raw.close)
    assert spikes.get_ydata().tolist() == [inspected.raw.low.min()]
    minutes, medians = volume.lines[0].get_data()
    assert minutes[0] == -30 and minutes[-1] == 389
    # Minute 300 is whole in all sessions.
    at = inspected.raw.time % (1440 * MINUTE) // MINUTE
    opens = np.where(inspected.raw.time < placement.time[5 * 390], 14 * 60 + 30, 13 * 60 + 30)
    of_minute = inspected.raw.volume[at - opens == 300]
    assert of_minute.size == 10
    assert medians[list(minutes).index(300)] == np.median(of_minute)
    state = gaps.images[0].get_array()
    assert np.argwhere(state == 3).tolist() == [[1, 20], [1, 21], [1, 22], [5, 7], [7, 0]]
    assert np.argwhere(state == 2).tolist() == [[4, 1], [4, 2]]


def test_a_report_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="the report cannot be written"):
        quality_report.write(tmp_path / "nowhere" / "report.html", [])
