"""Memory: what training takes of each device, predicted before anything large is there.

Sizes are those of the program's own shapes, which cost nothing to ask for: no prices are made, and
nothing is compiled. XLA's count of the compiled update, told after it, is of the same things.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jules_jax import config
from jules_jax.agent import network, ppo, rollout
from jules_jax.agent.learner import MEMBER, Learner
from jules_jax.agent.rollout import Transitions
from jules_jax.errors import InputError

MIB = 2**20
GIB = 2**30
FLOAT32 = 4
CGROUP = Path("/sys/fs/cgroup")
"""Where a container finds its own limits (version 2)."""
COPIES = "copies of the state"
KEPT_STATES = 3
"""Copies of a state beside the one that learns: two of the guard's, one that is being written."""
REMEDIES = (
    "fewer num_envs, more ppo.num_minibatches, --remat or a smaller market table "
    "(simulator.paths, market.market_memory)"
)


@dataclass(frozen=True)
class Prediction:
    """What training takes of one device.

    parts: bytes, by what they are for. limit: bytes that there are; None where that is not known.
    """

    parts: Mapping[str, int]
    limit: int | None = None

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())

    @property
    def update(self) -> int:
        """Bytes that an update has to do with: all but the copies that others keep of its state."""
        return self.total - self.parts[COPIES]

    @property
    def fits(self) -> bool:
        """Whether there is as much, as far as is known."""
        return self.limit is None or self.total <= self.limit

    def describe(self) -> str:
        """One line: the sum, what there is, and the parts, the largest first."""
        of = "" if self.limit is None else f" of {self.limit / MIB:,.0f}"
        largest = sorted(self.parts.items(), key=lambda part: -part[1])
        parts = ", ".join(f"{what} {size / MIB:,.0f}" for what, size in largest if size >= MIB / 2)
        return f"about {self.total / MIB:,.0f}{of} MiB of a device" + (
            f": {parts}" if parts else ""
        )

    def require(self) -> None:
        """Raises `InputError` where there is less than it takes."""
        if self.fits or self.limit is None:
            return
        most = max(self.parts, key=self.parts.__getitem__)
        raise InputError(
            f"training would take about {self.total / MIB:,.0f} MiB of each device and there are "
            f"{self.limit / MIB:,.0f}, most of it for the {most} ({self.parts[most] / MIB:,.0f}), "
            f"expected {REMEDIES}, or --auto-lanes"
        )


def predict(learner: Learner, env_params: Any) -> Prediction:
    """What training with `learner` takes; `env_params` may be shapes alone (`jax.eval_shape`)."""
    settings, mesh, members = learner.settings, learner.mesh, learner.members
    agents = (members or 1) // mesh.shape.get(MEMBER, 1)  # on a device
    lanes = settings.num_envs // learner.lane_devices
    state = jax.eval_shape(learner.init, _key_of(members), env_params)
    own = state if members is None else jax.tree.map(_of_one_member, state)
    weights, optimizer = _bytes(own.params), _bytes(own.opt_state)
    of_lanes = _bytes(own.lanes) // learner.lane_devices
    elsewhere = 0
    if settings.market.sharded:
        whole = _bytes(env_params.market.rows)
        elsewhere = whole - whole // learner.lane_devices
    parts = {
        "market table": _bytes(env_params) - elsewhere,
        "weights": agents * (2 * weights + optimizer),  # and as many gradients
        "lanes": agents * of_lanes,
        COPIES: agents * KEPT_STATES * (weights + optimizer + of_lanes),
        "rollout": agents * _rollout_bytes(settings, lanes, own.lanes.obs.shape[-1]),
        "gradient": agents * _gradient_bytes(learner, own, lanes // settings.ppo.num_minibatches),
        "audit": _audited_bytes(learner, own, env_params, lanes),
    }
    return Prediction(parts, limit_of(settings, mesh.local_devices[0], len(mesh.local_devices)))


def limit_of(settings: config.Config, device: jax.Device, devices: int) -> int | None:
    """Bytes that training may take of each of this process's `devices`; None: not known.

    What `memory_limit_gib` says, else what the device's allocator may hand out. Devices of a CPU,
    all those of this process, share what the machine has available.
    """
    if settings.memory_limit_gib:
        return round(settings.memory_limit_gib * GIB)
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    available = _available() if device.platform == "cpu" else None
    return None if available is None else available // devices


def with_fewer_lanes(
    settings: config.Config, predicted: Callable[[config.Config], Prediction]
) -> config.Config:
    """The settings with as many lanes, `num_envs` at most, as the memory holds.

    They divide as `num_envs` does: into minibatches, and those into the same shuffle groups.
    Everything grows linearly with lanes, so two predictions tell of all. Raises `InputError` where
    not even the fewest fit.
    """

    def of(lanes: int) -> tuple[config.Config, Prediction]:
        changed = dataclasses.replace(settings, num_envs=lanes, auto_lanes=False)
        return changed, predicted(changed)

    asked, most = of(settings.num_envs)
    if most.fits or most.limit is None:
        return asked
    unit = settings.ppo.num_minibatches * settings.shuffle_groups
    _, least = of(unit)
    least.require()
    of_a_unit = (most.total - least.total) / (settings.num_envs / unit - 1)
    fewer, _ = of(unit + math.floor((most.limit - least.total) / of_a_unit) * unit)
    return fewer


@contextmanager
def exhaustion_told() -> Iterator[None]:
    """Turns XLA's account of a memory that is exhausted into one sentence."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition("\n")[0]
        if "RESOURCE_EXHAUSTED" not in reason:
            raise
        raise InputError(
            f"a device's memory is exhausted ({reason[:160]}), expected {REMEDIES}"
        ) from None


def _key_of(members: int | None) -> Any:
    shape = () if members is None else (members,)
    return jax.eval_shape(lambda: jax.random.split(jax.random.key(0), shape))


def _of_one_member(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


def _rollout_bytes(settings: config.Config, lanes: int, inputs: int) -> int:
    """Transitions of all lanes, and what is made of them for the loss."""
    number, flag, obs, action = _of_steps(settings.ppo.n_steps, lanes, inputs)
    steps = Transitions(
        obs=obs,
        action=action,
        log_prob=number,
        value=number,
        reward=number,
        first=flag,
        terminated=flag,
        truncated=flag,
        ep_rew=number,
    )
    next_value = advantage = target = number
    return _bytes((steps, next_value, advantage, target))


def _gradient_bytes(learner: Learner, state: Any, lanes: int) -> int:
    """What the gradient of a minibatch of `lanes` keeps of the way there, and on the way back.

    On the way back the widest layer of both towers meets what flows into it and out of it. With
    `ppo.remat` a stretch of time takes all that, and what lies between stretches comes on top.
    """
    settings, replay = learner.settings, learner.lstm.sequence
    of, steps = settings.ppo, settings.ppo.n_steps
    at_once = network.stretch_steps(steps) if of.remat else steps
    width = max(settings.network.lstm_hidden_size, *settings.network.net_arch)
    flowing = 2 * 2 * at_once * lanes * width * FLOAT32
    kept = _residual_bytes(dataclasses.replace(of, remat=False), replay, state, at_once, lanes)
    between = _residual_bytes(of, replay, state, steps, lanes) if of.remat else 0
    return flowing + kept + between


def _residual_bytes(
    of: config.PPO, replay: network.Recurrence, state: Any, steps: int, lanes: int
) -> int:
    """What a gradient keeps: the leaves of the function that `jax.vjp` returns."""
    number, flag, obs, action = _of_steps(steps, lanes, state.lanes.obs.shape[-1])
    batch = ppo.Batch(
        obs=obs, first=flag, action=action, log_prob=number, advantage=number, target=number
    )
    carry = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((lanes, *leaf.shape[1:]), leaf.dtype), state.lanes.carry
    )

    def backward(params: network.Params, carry: Any, batch: ppo.Batch) -> Any:
        def loss(params: network.Params) -> jax.Array:
            return ppo.loss(params, carry, batch, of, sequence=replay)[0]

        return jax.vjp(loss, params)[1]

    return _bytes(jax.eval_shape(backward, state.params, carry, batch))


def _of_steps(steps: int, lanes: int, inputs: int) -> tuple[Any, ...]:
    """Shapes of a number, a flag, an observation and an action of every step of every lane."""
    shape = (steps, lanes)
    return (
        jax.ShapeDtypeStruct(shape, jnp.float32),
        jax.ShapeDtypeStruct(shape, jnp.bool_),
        jax.ShapeDtypeStruct((*shape, inputs), jnp.float32),
        jax.ShapeDtypeStruct(shape, jnp.int32),
    )


def _audited_bytes(learner: Learner, state: Any, env_params: Any, lanes: int) -> int:
    """What is kept of every step of the watched lanes."""
    watch, count = learner.watch, min(learner.watched, lanes)
    if watch is None or not count:
        return 0
    env, env_state = learner.env, jax.tree.map(_of_one_member, state.lanes.env_state)

    def seen(key: jax.Array, env_state: Any, action: jax.Array, env_params: Any) -> Any:
        *_, info = env.step(key, env_state, action, env_params)
        number = jnp.float32(0)
        logits = jnp.zeros(env.num_actions)
        kept = watch(env_state, info)
        return rollout.Watched(info["final_observation"], number > 0, logits, number, kept)

    action = jax.ShapeDtypeStruct((), jnp.int32)
    shapes = jax.eval_shape(seen, _key_of(None), env_state, action, env_params)
    return learner.settings.ppo.n_steps * count * _bytes(shapes)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _available() -> int | None:
    """Bytes that the machine can give without swapping, and a container its processes.

    None where Linux is not there to say.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # no limit is "max", of no container no file
        allowed, used = (
            int((CGROUP / f"memory.{what}").read_text(encoding="ascii"))
            for what in ("max", "current")
        )
        found.append(max(allowed - used, 0))
    return min(found, default=None)
