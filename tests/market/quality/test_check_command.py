"""What the shell does to `python -m jules_jax.data check`: globs and pipes."""

import subprocess
import sys

import pytest

from jules_jax import flags
from jules_jax.errors import InputError


def test_a_glob_that_the_shell_expanded_is_told_to_need_quotes():
    known = {"check": flags.Subcommand(lambda config, extras: 0, "")}
    with pytest.raises(InputError, match=r"unexpected 'A2\.zip' after the path.*needs quotes"):
        flags.parse_subcommand(["check", "A1.zip", "A2.zip"], program="data", known=known)


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)"])
@pytest.mark.parametrize("lines", [1, 100_000])  # fewer and more than a buffer holds
def test_a_reader_that_stops_early_ends_a_command_without_a_word(lines, end):
    program = (
        "from jules_jax import errors\n"
        f"def main():\n    [print('x' * 20) for _ in range({lines})]\n    {end}\n"
        "input()\nerrors.run_command(main)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    child.stdout.close()
    _, err = child.communicate(b"\n")
    assert (child.returncode, err) == (141, b"")
