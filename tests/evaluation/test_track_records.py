import json
import subprocess
import sys

import numpy as np
import pytest

from jules_jax.errors import InputError
from jules_jax.evaluation import track_records

DAYS = ["2024-05-01", "2024-05-02", "2024-05-03"]


def trial(checkpoint, returns, config="c0", labels=DAYS):
    return track_records.trial(config, checkpoint, labels, returns)


def test_what_was_appended_is_read_as_a_matrix_to_the_last_bit(tmp_path):
    ours, theirs = np.random.default_rng(0).normal(size=(2, 3))
    track_records.append(tmp_path, "spy-test", trial("a", ours))
    track_records.append(tmp_path, "spy-test", trial("b", theirs))
    found = track_records.read(tmp_path, "spy-test")
    np.testing.assert_array_equal(found.returns, np.stack([ours, theirs], axis=1))
    assert found.names == ("c0:a", "c0:b")


def test_nothing_was_seen_where_there_is_no_file(tmp_path):
    returns, names = track_records.read(tmp_path, "none")
    assert returns.shape == (0, 0) and names == ()
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_counts_once_as_it_was_evaluated_last_and_no_line_is_lost(tmp_path):
    for returns in ([1, 2, 3], [4, 5, 6]):
        track_records.append(tmp_path, "k", trial("a", returns))
        track_records.append(tmp_path, "k", trial("b", [0, 0, 0]))
    track_records.append(tmp_path, "k", trial("a", [7, 8, 9], config="c1"))
    found = track_records.read(tmp_path, "k")
    assert found.names == ("c0:a", "c0:b", "c1:a")
    assert found.returns[:, 0].tolist() == [4, 5, 6]
    assert len((tmp_path / "track_records" / "k.jsonl").read_text().splitlines()) == 5


def test_only_trials_of_the_same_periods_enter_a_matrix(tmp_path):
    track_records.append(tmp_path, "k", trial("a", [1, 2, 3]))
    track_records.append(tmp_path, "k", trial("b", [1, 2], labels=DAYS[:2]))
    track_records.append(tmp_path, "k", trial("c", [4, 5, 6]))
    assert track_records.read(tmp_path, "k").names == ("c0:a", "c0:c")
    assert track_records.read(tmp_path, "k", DAYS[:2]).names == ("c0:b",)
    assert track_records.read(tmp_path, "k", DAYS[1:]).returns.shape == (2, 0)
    assert track_records.read(tmp_path, "other").names == ()


def test_labels_may_be_dates_or_numbers(tmp_path):
    labels = np.array(DAYS, "datetime64[D]")
    track_records.append(tmp_path, "k", trial("a", np.zeros(3), labels=labels))
    assert track_records.read(tmp_path, "k", DAYS).names == ("c0:a",)


def test_processes_may_append_at_the_same_time(tmp_path):
    """Lines far longer than what a file writes at once."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from jules_jax.evaluation import track_records\n"
        "for each in range(20):\n"
        "    name, returns = f'{sys.argv[2]}-{each}', [0.1] * 3000\n"
        "    record = track_records.trial('c', name, range(3000), returns)\n"
        "    track_records.append(Path(sys.argv[1]), 'k', record)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    runs = [subprocess.Popen([*command, str(number)]) for number in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert track_records.read(tmp_path, "k").returns.shape == (3000, 60)


def test_a_line_that_was_cut_short_is_named_and_spoils_no_other(tmp_path):
    track_records.append(tmp_path, "k", trial("a", [1, 2, 3]))
    file = tmp_path / "track_records" / "k.jsonl"
    whole = file.read_text()
    file.write_text(whole + whole[:40])
    track_records.append(tmp_path, "k", trial("b", [1, 2, 3]))
    with pytest.raises(InputError, match=r"k\.jsonl, line 2: found what is no track record"):
        track_records.read(tmp_path, "k")
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[2]]))  # taken out, and without a last line end
    track_records.append(tmp_path, "k", trial("c", [1, 2, 3]))
    assert track_records.read(tmp_path, "k").names == ("c0:a", "c0:b", "c0:c")


def test_a_line_with_other_fields_is_refused(tmp_path):
    file = tmp_path / "track_records" / "k.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps({"returns": [1]}) + "\n")
    with pytest.raises(InputError, match="line 1"):
        track_records.read(tmp_path, "k")


def test_what_is_no_record_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="3 labels and 2 returns"):
        trial("a", [1, 2])
    with pytest.raises(ValueError, match="not finite"):
        trial("a", [1, 2, np.nan])
    with pytest.raises(ValueError, match="found key"):
        track_records.append(tmp_path, "../elsewhere", trial("a", [1, 2, 3]))
    assert not list(tmp_path.iterdir())
