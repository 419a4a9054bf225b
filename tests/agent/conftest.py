"""Tests of the agent check arithmetic, not speed."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _compile_quickly(quick_compilation):
    return
