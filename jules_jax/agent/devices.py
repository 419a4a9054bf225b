"""Arrays over the devices of one process or of many: to all of them, and back to the host."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding

from jules_jax.errors import InputError


def available(count: int) -> list[jax.Device]:
    """`count` devices, all for 0: the first ones, as many of each process of the run.

    Raises `InputError` where there are fewer, or where the processes cannot share them evenly.
    """
    found, processes = jax.devices(), jax.process_count()
    if not 0 <= count <= len(found):
        raise InputError(f"devices: found {count}, expected 0 (all) to {len(found)}")
    if processes == 1:
        return found[: count or None]
    if count % processes:
        raise InputError(
            f"devices: found {count}, expected a multiple of the {processes} processes"
        )
    of_each = [jax.local_devices(process) for process in range(processes)]
    if len({len(of) for of in of_each}) > 1:
        numbers = ", ".join(str(len(of)) for of in of_each)
        raise InputError(f"devices: processes have {numbers} of them, expected as many each")
    share = count // processes or None
    return [device for of in of_each for device in of[:share]]


def spread(tree: Any, sharding: Sharding) -> Any:
    """The tree laid out as `sharding` says; of several processes each has the same tree."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def place(leaf: Any) -> jax.Array:
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(place, tree)


def gathered(tree: Any) -> Any:
    """The values of a tree on the host, whole, in every process.

    All processes have to ask for it at the same place of the program: what lies on the devices of
    one goes to the others.
    """
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            assert isinstance(leaf.sharding, NamedSharding)
            tree = _copies(leaf.sharding.mesh)(tree)
            break
    return jax.device_get(tree)


@cache
def _copies(mesh: Mesh | AbstractMesh) -> Any:
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))
