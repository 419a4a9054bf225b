"""What an audit costs: `python -m benchmarks.audit_cost [EPISODES]`, seconds per 1e6 steps.

Whole episodes of fresh weights on the preset `default`: as an evaluation plays them, with the
records that the ledgers are folded from, and written as an audit; then what proving it takes.
Other programs on the machine disturb processor time less than time, but do disturb it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jules_jax import config
from jules_jax.agent import network, policy
from jules_jax.env.params import make_params
from jules_jax.evaluation import audit, backtest, unseen
from jules_jax.evaluation.audit import manifest, reading, verification


def seconds(do: Callable[[], Any], steps: int) -> str:
    """Processor seconds and time of a second call, per million steps."""
    do()
    cpu, wall = time.process_time(), time.monotonic()
    do()
    scale = 1e6 / steps
    cpu, wall = (time.process_time() - cpu) * scale, (time.monotonic() - wall) * scale
    return f"{cpu:8.2f} s of processor, {wall:8.2f} s"


def main() -> None:
    """The command."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    settings = config.load({"simulator.preset": "default"})
    market = unseen.fresh_paths(settings, count, jax.random.key(1))
    starts = backtest.one_per_stretch(np.asarray(market.episodes), count, seed=0)
    params, env = network.init(jax.random.key(0), settings.network), make_params(settings, market)
    who, key, steps = policy.from_network(greedy=False), jax.random.key(2), count * 1000
    facts = audit.Facts("evaluation", "benchmark", settings, market.bar_seconds)
    with tempfile.TemporaryDirectory() as root:
        places = iter(Path(root) / str(number) for number in range(2))

        def record() -> None:
            with audit.Writer(next(places), facts) as writer:
                audit.record_episodes(writer, who, params, settings, market, starts, key)

        def play() -> None:
            jax.block_until_ready(audit.play(who, params, env, starts, key))

        totals = lambda: backtest.run_episodes(who, params, env, starts, key)  # noqa: E731
        print(f"played, totals only      {seconds(totals, steps)}")
        print(f"played, with records     {seconds(play, steps)}")
        print(f"played and written       {seconds(record, steps)}")
        written = Path(root) / "1"
        size = sum(path.stat().st_size for path in written.iterdir())
        print(f"on disk                  {size / steps:8.0f} bytes a step")
        found, _ = manifest.read(written)

        def twin() -> None:
            for batch in reading.episodes(written, found):
                assert not list(verification.twin_findings(batch, found))

        chain = lambda: verification.chain_findings(written, found)  # noqa: E731
        print(f"chain verified           {seconds(chain, steps)}")
        print(f"twin                     {seconds(twin, steps)}")


if __name__ == "__main__":
    main()
