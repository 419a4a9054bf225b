"""The audit trail: every step of recorded episodes, enough to prove and to explain each of them.

Schema version 2. An audit is a directory: `steps-*.parquet` and `episodes-*.parquet` (`columns`),
whose rows are chained by hashes (`chain`), and `manifest.json` (`manifest`). `recording` plays
episodes, `writing` and `training_lanes` write them, `reading` gives them back, `verification` says
whether they are as written and whether they are right, `explanation` tells one decision in words.
"""

from jules_jax.evaluation.audit.columns import SCHEMA_VERSION
from jules_jax.evaluation.audit.explanation import explain
from jules_jax.evaluation.audit.manifest import Facts, Manifest, code_hash
from jules_jax.evaluation.audit.recording import (
    Played,
    add,
    lanes_of,
    play,
    record_episodes,
    script,
)
from jules_jax.evaluation.audit.training_lanes import LaneWriter, Rollout
from jules_jax.evaluation.audit.verification import Verification, report, verify
from jules_jax.evaluation.audit.writing import Writer

__all__ = [
    "SCHEMA_VERSION",
    "Facts",
    "LaneWriter",
    "Manifest",
    "Played",
    "Rollout",
    "Verification",
    "Writer",
    "add",
    "code_hash",
    "explain",
    "lanes_of",
    "play",
    "record_episodes",
    "report",
    "script",
    "verify",
]
