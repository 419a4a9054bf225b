"""report.json: what is documented is what is checked, and what is written is strict JSON."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jules_jax.errors import InputError
from jules_jax.evaluation import report
from jules_jax.evaluation.report import schema
from tests.evaluation.report import made

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return schema.plain(made.full())


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


@pytest.mark.parametrize("kind", ["full", "minimal", "negative"])
def test_a_report_of_any_content_passes_and_is_strict_json(kind: str) -> None:
    kept = schema.plain(getattr(made, kind)())
    schema.check(kept)
    text = json.dumps(kept, allow_nan=False)
    assert json.loads(text, parse_constant=refuse) == kept


def test_numbers_of_numpy_keep_their_values_and_what_is_not_finite_is_null() -> None:
    found = schema.plain(
        {"a": np.float32(0.5), "b": np.array([1, 2]), "c": (np.nan, -np.inf), 3: np.bool_(True)}
    )
    assert found == {"a": 0.5, "b": [1, 2], "c": [None, None], "3": True}
    assert type(found["b"][0]) is int and type(found["3"]) is bool


def change(whole: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the key at `path` set, or removed where the value is `...`."""
    changed = copy.deepcopy(whole)
    *way, last = path.split("/")
    inside = changed
    for name in way:
        inside = inside[int(name) if isinstance(inside, list) else name]
    if value is ...:
        del inside[last]
    else:
        inside[int(last) if isinstance(inside, list) else last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("sentence", ..., "the report lacks the key “sentence”"),
        ("surprise", 1, "the report has the key “surprise”, expected one of schema_version"),
        ("schema_version", 2, "schema_version is 2, expected 1"),
        ("policies", {}, "policies is empty, expected at least one"),
        ("unit", None, "unit is null, expected a text"),
        ("provenance/trials", 1.5, "provenance.trials is 1.5, expected a whole number"),
        ("provenance/trials", True, "provenance.trials is True, expected a whole number"),
        ("policies/flat/overall/sharpe", ..., "policies.flat.overall lacks the key “sharpe”"),
        ("policies/flat/overall/shrp", {}, "policies.flat.overall has the key “shrp”"),
        ("policies/flat/symbols/SPY/psr/value", "1", "SPY.psr.value is '1', expected a number"),
        ("policies/flat/daily/net", [1.0], "policies.flat.daily differ in length"),
        ("policies/flat/equity", [], "policies.flat.equity is [], expected an object"),
        ("policies/flat/returns_histogram/edges", [0.0], "expected one more than counts"),
        ("sessions_shown/1/fills/0/forced", 1, "sessions_shown[1].fills[0].forced is 1"),
        ("sessions_shown/0/fills/2", None, "sessions_shown[0].fills[2] is null"),
        ("gates/gates/0/threshold", ..., "gates.gates[0] lacks the key “threshold”"),
        ("walk_forward/overall/calmar", ..., "walk_forward.overall lacks the key “calmar”"),
    ],
)
def test_a_wrong_key_is_named(whole: dict[str, Any], path: str, value: Any, told: str) -> None:
    with pytest.raises(InputError) as error:
        schema.check(change(whole, path, value))
    assert told in str(error.value)


def test_rows_of_robustness_may_tell_more_than_the_schema_does(whole: dict[str, Any]) -> None:
    schema.check(change(whole, "stress/0/escapes", 3))


def test_a_report_of_another_schema_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        report.write(change(made.minimal(), "unit", ...), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_made_is_an_error_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken: the report cannot be written"):
        report.write(made.minimal(), tmp_path / "taken")


def test_every_key_has_a_meaning() -> None:
    def records(kind: Any) -> Any:
        while isinstance(kind, schema.ListOf | schema.MapOf):
            kind = kind.of
        if isinstance(kind, schema.Record):
            for name, key in kind.keys.items():
                yield name, key
                yield from records(key.kind)

    assert all(len(key.what) > 0 for _, key in records(schema.REPORT))


def test_the_documentation_has_the_tables_of_the_schema() -> None:
    assert any(schema.markdown() in page.read_text("utf-8") for page in DOCS.glob("*.md"))


def test_the_table_has_every_path_of_a_full_report(whole: dict[str, Any]) -> None:
    """Read off the report itself, not the schema."""

    def paths(value: Any, path: str) -> Any:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for one in value:
                yield from paths(one, f"{path}[]")
        elif isinstance(value, dict):
            names = {"policies": "POLICY", "symbols": "SYMBOL", "versions": "LIBRARY"}
            names["reward_terms"] = "TERM"
            for key, one in value.items():
                name = names.get(path.split(".")[-1], key)
                name = "METRIC" if key in schema.METRICS and path.endswith("overall") else name
                yield f"{path}.{name}".lstrip(".")
                if name not in ("SYMBOL", "LIBRARY", "TERM") and "net_pnl" not in name:
                    yield from paths(one, f"{path}.{name}".lstrip("."))

    table = schema.markdown()
    free = ("gates.schema_version", "gates.seconds", "bars_lost", "folds[].updates")
    for path in set(paths(whole, "")):
        if "walk_forward.overall." in path or path.endswith(("POLICY", "METRIC", *free)):
            continue
        if path.split(".")[-1] in ("SYMBOL", "LIBRARY", "TERM"):
            continue
        assert f"| `{path}` |" in table, path
