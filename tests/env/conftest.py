"""Tests of the environment check arithmetic, not speed: compile quickly."""

from tests.agent.conftest import quick_compilation

__all__ = ["quick_compilation"]
