"""report.html: self-contained, whole, and readable in a browser, on a phone and in the dark."""

import html as entities
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jules_jax.evaluation import report
from tests.evaluation.report import made

FIGURES = {
    "policies",
    "equity",
    "daily",
    "waterfall",
    "reward-terms",
    "time-of-day",
    "session-1",
    "session-2",
    "session-3",
    "requests",
    "returns",
    "stress",
    "capacity",
    "sensitivity",
    "walk-forward",
}
KEY_FIGURES = ("$212", "$132 to $292", "2.46", "± 0.71", "0.64 years", "> 99.9 %", "88.6 %")
KEY_FIGURES += ("after 137 trials", "3.90 bp", "$180, from $392 gross", "1.23 %", "7 sessions")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


class Page(HTMLParser):
    """Tags with their attributes, and the text that is read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.inside: list[str] = []
        self.feed(text)
        self.text = plain(" ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "svg", "title"} & set(self.inside):
            self.words.append(data)


def plain(text: str) -> str:
    return " ".join(text.replace("\u202f", " ").split())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    home = tmp_path_factory.mktemp("reports")
    kinds = ("full", "minimal", "negative")
    return {kind: report.write(getattr(made, kind)(), home / kind) for kind in kinds}


def html(files: list[Path]) -> str:
    return next(path for path in files if path.name == "report.html").read_text("utf-8")


def test_the_files_are_those_returned_and_are_small(written: dict[str, list[Path]]) -> None:
    for files in written.values():
        assert sorted(files[0].parent.iterdir()) == sorted(files)
        assert sum(path.stat().st_size for path in files) < 3_000_000
    stems = {path.stem for path in written["full"] if path.suffix == ".png"}
    assert stems == FIGURES
    assert {path.suffix for path in written["minimal"]} == {".json", ".html"}
    assert "waterfall" in {path.stem for path in written["negative"]}
    for path in written["full"]:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["full", "minimal", "negative"])
def test_nothing_outside_the_page_is_referred_to(written: dict[str, list[Path]], kind: str) -> None:
    text = html(written[kind])
    page = Page(text)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href", "xlink:href", "srcset", "poster", "data", "background"):
            target = attrs.get(name, "data:")
            assert target.startswith("data:") or target.removeprefix("#") in ids, (tag, target)
    for target in re.findall(r"url\(([^)]*)\)", text):
        assert target.removeprefix("#") in ids
    assert "@import" not in text and "http:" not in text and "https:" not in text
    assert "default-src 'none'" in text


def test_key_figures_and_every_policy_are_told_in_words(written: dict[str, list[Path]]) -> None:
    text = Page(html(written["full"])).text
    for words in (*KEY_FIGURES, *made.NAMES, made.full()["sentence"]):
        assert words in text, words
    for words in ("agreed on every one", "9f2c5b1e7d0a", "raise ppo.ent_coef", "flash crash"):
        assert words in text, words


def test_parts_that_are_missing_say_how_to_get_them(written: dict[str, list[Path]]) -> None:
    text = Page(html(written["minimal"])).text
    for flag in ("--stress", "--capacity", "--sensitivity", "--walk-forward", "--replay-all"):
        assert flag in text
    assert "python -m jules_jax.gates RUN" in text
    assert "nan" not in text.lower().split() and "None" not in text and "null" not in text.split()


def test_names_are_shown_as_they_are_and_never_as_markup(written: dict[str, list[Path]]) -> None:
    text = html(written["negative"])
    assert "<b>trained</b>" not in text and "&lt;b&gt;trained&lt;/b&gt; &amp; greedy" in text


def test_figures_have_words_for_who_cannot_see_them_and_no_colour_of_their_own(
    written: dict[str, list[Path]],
) -> None:
    text = html(written["full"])
    page = Page(text)
    drawings = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(drawings) == 2 * len(FIGURES)
    for attrs in drawings:
        assert attrs["role"] == "img" and len(attrs["aria-label"]) > 10
    body = text[text.index("<body>") :]
    for colour in re.findall(r"(?:fill|stroke): ?(#[0-9a-fA-F]{3,6})", body):
        raise AssertionError(f"{colour} would be the same in light and dark")
    assert "var(--greedy)" in body


def test_headings_descend_one_level_at_a_time(written: dict[str, list[Path]]) -> None:
    tags = [tag for tag, _ in Page(html(written["full"])).tags]
    levels = [int(tag[1]) for tag in tags if tag in ("h1", "h2", "h3")]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_same_report_is_the_same_page(written: dict[str, list[Path]], tmp_path: Path) -> None:
    again = report.write(made.negative(), tmp_path)
    assert html(again) == html(written["negative"])


WRAPPER = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe src="{page}" style="border:0; width:{width}px; height:2000px"></iframe>
<pre id="found"></pre><script>
addEventListener("load", () => {{
  const frame = document.querySelector("iframe");
  const inside = frame.contentDocument, root = inside.documentElement;
  const before = root.scrollWidth;
  for (const one of inside.querySelectorAll("details")) one.open = true;
  const shown = [...inside.querySelectorAll("figure svg")].filter(
    svg => svg.getBoundingClientRect().width > 0);
  const style = name => frame.contentWindow.getComputedStyle(name);
  document.querySelector("#found").textContent = JSON.stringify({{
    width: before,
    opened: root.scrollWidth,
    text: inside.body.innerText,
    dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
    paper: style(inside.body).backgroundColor,
    ink: style(inside.querySelector("figure svg text")).fill,
    figures: shown.length,
    smallest: Math.min(...shown.map(svg => svg.getBoundingClientRect().height), 999),
    tables: Math.min(...[...inside.querySelectorAll(".scroll")].map(
      box => box.getBoundingClientRect().width)),
  }});
}});
</script>"""


def look(page: Path, home: Path, *, width: int, dark: bool) -> dict:
    """What Chromium finds in a frame of `width` px; any message on its console is an error."""
    assert CHROMIUM is not None
    wrapper = home / "wrapper.html"
    wrapper.write_text(WRAPPER.format(page=page.as_uri(), width=width), encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--user-data-dir={home / 'profile'}",
            "--window-size=1280,1024",
            "--dump-dom",
            wrapper.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.S)
    assert found is not None and found.group(1), done.stderr[-2000:]
    return json.loads(entities.unescape(found.group(1)))


needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"
)


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("kind", ["full", "negative"])
def test_a_browser_shows_the_page_on_a_phone(
    written: dict[str, list[Path]], tmp_path: Path, kind: str, dark: bool
) -> None:
    page = next(path for path in written[kind] if path.name == "report.html")
    found = look(page, tmp_path, width=390, dark=dark)
    assert found["width"] <= 390 and found["opened"] <= 390
    assert found["dark"] is dark
    assert found["paper"] == ("rgb(20, 24, 28)" if dark else "rgb(252, 251, 249)")
    drawn = sum(path.suffix == ".png" for path in written[kind])
    assert found["figures"] == drawn and found["smallest"] > 60
    if kind == "full":
        for words in KEY_FIGURES:
            assert words in plain(found["text"]), words


@needs_chromium
def test_a_browser_shows_the_page_on_a_desk(written: dict[str, list[Path]], tmp_path: Path) -> None:
    page = next(path for path in written["full"] if path.name == "report.html")
    found = look(page, tmp_path, width=1200, dark=False)
    assert found["width"] <= 1200 and found["figures"] == len(FIGURES)


@needs_chromium
def test_the_browser_test_sees_a_page_that_is_too_wide_and_a_refused_request(
    tmp_path: Path,
) -> None:
    page = tmp_path / "wide.html"
    start = '<body><figure><svg height="99" width="99"><text>a</text></svg></figure>'
    page.write_text(f'{start}<div class="scroll" style="width: 700px">wide</div>')
    assert look(page, tmp_path, width=390, dark=False)["width"] > 390
    page.write_text(f'{start}<div class="scroll"></div><script>nothing.at.all</script>')
    with pytest.raises(AssertionError, match="CONSOLE"):
        look(page, tmp_path, width=390, dark=False)
