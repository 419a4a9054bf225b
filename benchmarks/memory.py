"""Memory: `python -m benchmarks.memory`, what a run predicts beside XLA's own count.

Nothing is trained and no prices are made: the update is compiled for its shapes alone, on one
device. Writes benchmarks/results/memory.json. Exit status 1 where a prediction is below the count,
or where 2,048 lanes × 128 steps of the default network are not below 8 GiB.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jax

from benchmarks import timing
from benchmarks.workload import ROOT
from jules_jax import config
from jules_jax.training import backend, memory, preparation

RESULTS = ROOT / "benchmarks" / "results" / "memory.json"
MIB, GIB = 2**20, 2**30
DEFAULT = "2,048 lanes × 128 steps, the default network"
SIZES: dict[str, dict[str, Any]] = {
    "256 lanes × 128 steps": {"num_envs": 256},
    DEFAULT: {"num_envs": 2048},
    "the same, --remat": {"num_envs": 2048, "remat": True},
    "one minibatch": {"num_envs": 2048, "num_minibatches": 1},
    "one minibatch, --remat": {"num_envs": 2048, "num_minibatches": 1, "remat": True},
    "LSTM(256), [256, 256]": {
        "num_envs": 2048,
        "lstm_hidden_size": 256,
        "net_arch": "256,256",
    },
}


def measure(values: dict[str, Any]) -> dict[str, Any]:
    """Bytes of an update and of all that training keeps, as predicted; of the update, as counted.

    The market's table, which the update only reads, is in each of them.
    """
    settings = config.load({**values, "devices": 1})
    table = preparation.table_of(settings, generation=0)
    learner, params = preparation.learner_of(settings, table, ())
    predicted = memory.predict(learner, params)
    state = jax.eval_shape(learner.init, jax.random.key(0), params)
    counted = learner.compile(state, params) + predicted.parts["market table"]
    return {
        "settings": values,
        "parts": dict(predicted.parts),
        "training": predicted.total,
        "update": predicted.update,
        "counted": counted,
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    backend.use_compilation_cache()
    facts = timing.hardware()
    print(f"{timing.heading(facts)}\n\n{'MiB of one device':<46} training   update    XLA")
    found = {}
    for name, values in SIZES.items():
        found[name] = one = measure(values)
        sizes = (f"{one[key] / MIB:9,.0f}" for key in ("training", "update", "counted"))
        print(f"{name:<46}{''.join(sizes)}", flush=True)
    arguments.json.write_text(json.dumps({"hardware": facts, "sizes": found}, indent=1) + "\n")
    covered = all(one["update"] >= one["counted"] for one in found.values())
    small = found[DEFAULT]["training"] < 8 * GIB and found[DEFAULT]["counted"] < 8 * GIB
    print(f"\npredictions cover the count: {'yes' if covered else 'NO'}; ", end="")
    print(f"{DEFAULT}, below 8 GiB: {'yes' if small else 'NO'}")
    raise SystemExit(0 if covered and small else 1)


if __name__ == "__main__":
    main()
