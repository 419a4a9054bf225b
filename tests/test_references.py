"""What trained agents are measured by is picked in stages; the verdict is the greedy policy's."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import default_market, populations, references
from jules_jax import config
from jules_jax.errors import InputError
from jules_jax.evaluation import reference_policies


def test_the_finalists_of_a_stage_play_the_next_and_the_best_of_the_last_is_picked(monkeypatch):
    earned = {"first": dict(zip("abcdefghij", range(10), strict=True)), "second": {}}
    earned["second"] = {name: -net for name, net in earned["first"].items()}
    played = []

    def play(who, days, candidates):
        played.append(set(candidates))
        return {name: {"pnl/net": np.full(4, earned[days][name])} for name in candidates}

    monkeypatch.setattr(references.market_edge, "play", play)
    found = references.pick("who", lambda days: earned[days], ["first", "second"])
    assert played == [set("abcdefghij"), set("cdefghij")]
    assert found.name == "c"  # the best of the finalists there, though the last here
    assert list(found.means[0])[:2] == ["j", "i"] and found.means[1]["c"] == -2.0
    np.testing.assert_array_equal(found.net("first"), np.full(4, 2.0))


def test_the_rule_that_stands_for_the_grid_on_default_lies_within_it():
    grid = reference_policies.grid()
    best = grid["vwap_reversion 0.5 -0.5"]  # benchmarks/results/default_market.json
    alike = [rule for rule in grid.values() if rule[:2] == best[:2]]
    assert min(rule.threshold for rule in alike) < best.threshold
    assert max(rule.threshold for rule in alike) > best.threshold
    exits = [rule.exit for rule in alike if rule.threshold == best.threshold]
    assert min(exits) < best.exit < max(exits)


def test_an_agent_is_judged_beside_rule_and_oracle_on_the_same_episodes(monkeypatch):
    net = {
        who: np.full((1, 6), net)
        for who, net in zip(default_market.HOW.values(), (3.0, 5.0), strict=True)
    }
    monkeypatch.setattr(populations, "play", lambda who, *_: net[who])
    earned = {"oracle": np.full(6, 10.0), "rule": np.full(6, 4.0)}
    found = default_market.judge(7, None, None, earned, None)
    assert found.beyond_rule["greedy"].value == 1.0 and found.share["greedy"].value == 0.5
    assert found.beyond_rule["sampled"].value == -1.0 and found.share["sampled"].value == 0.3


def test_nothing_kept_is_said_in_a_sentence(tmp_path):
    places = config.load({"checkpoint_dir": str(tmp_path)})
    with pytest.raises(InputError, match="default-1: found no checkpoint"):
        default_market.kept(1, places)
