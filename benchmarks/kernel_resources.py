"""What the fused LSTM kernel asks of a GPU: registers, spills and shared memory, without a GPU.

Lowers both kernels for CUDA, compiles them by Triton and asks ptxas. It needs Triton, of which XLA
has a version of its own: what a GPU will run may differ a little.

    pip install triton
    python -m benchmarks.kernel_resources
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractDevice, AbstractMesh

from jules_jax import config
from jules_jax.agent import lstm, lstm_kernel, network
from jules_jax.errors import InputError, run_command

ARCHITECTURES = {80: "sm_80", 90: "sm_90a"}
"""Ampere (A100) and Hopper (H100, H200)."""
PTX_VERSION = 86
"""One that the ptxas which comes with Triton knows."""
STEPS, LANES = 128, 4_096


def kernels(precision: str, block: int, width: int) -> dict[str, str]:
    """Both kernels of two towers, in Triton's own language."""
    from jaxlib.mlir import ir
    from jaxlib.triton import dialect

    towers = jax.eval_shape(
        lambda key: network.init(key, config.Network(lstm_hidden_size=width)).towers.lstm,
        jax.random.key(0),
    )
    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    carry = lstm.Carry(shape((2, LANES, width)), shape((2, LANES, width)))
    sequence = jax.vmap(partial(lstm_kernel.sequence, block=block), in_axes=(0, 0, None, None))

    def loss(towers: lstm.LSTM, *inputs: Any) -> jax.Array:
        return jnp.sum(sequence(towers, *inputs)[1])

    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    target = jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device))
    with target, network.products(precision):
        traced = jax.jit(jax.grad(loss)).trace(
            towers,
            carry,
            shape((STEPS, LANES, 12)),
            jax.ShapeDtypeStruct((STEPS, LANES), jnp.bool_),
        )
        module = traced.lower(lowering_platforms=("cuda",)).compiler_ir("stablehlo")
    found: list[str] = []
    context = ir.Context()
    dialect.register_dialect(context)
    context.allow_unregistered_dialects = True

    def visit(operation: Any) -> Any:
        attributes = operation.attributes
        if "mhlo.backend_config" in attributes and "ir" in attributes["mhlo.backend_config"]:
            code = attributes["mhlo.backend_config"]["ir"].value_bytes
            found.append(str(ir.Module.parse(code, context)))
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return dict(zip(("forward", "backward"), found, strict=True))


def resources(kernel: str, capability: int, warps: int, stages: int) -> str:
    """Registers of a thread, bytes it spills, and shared memory of a program."""
    import triton
    from triton.backends.compiler import GPUTarget

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ttir"
        source.write_text(kernel, encoding="utf-8")
        compiled = triton.compile(
            str(source),
            target=GPUTarget("cuda", capability, 32),
            options={"num_warps": warps, "num_stages": stages, "ptx_version": PTX_VERSION},
        )
        ptx = Path(folder) / "kernel.ptx"
        ptx.write_text(compiled.asm["ptx"], encoding="utf-8")
        ptxas = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
        line = [ptxas, "-v", f"-arch={ARCHITECTURES[capability]}", ptx, "-o", "/dev/null"]
        told = subprocess.run(line, capture_output=True, text=True, check=True).stderr
    registers = re.findall(r"Used (\d+) registers", told)[0]
    spilled = re.findall(r"(\d+) bytes spill stores", told)[0]
    shared = compiled.metadata.shared / 1024
    return f"{registers} registers, {spilled} bytes spilled, {shared:.0f} KiB shared"


def main() -> None:
    """Prints a line for each kernel."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", default="16,32", help="lanes of a program, with commas")
    parser.add_argument("--warps", type=int, default=lstm_kernel.WARPS)
    parser.add_argument("--width", type=int, default=config.Network().lstm_hidden_size)
    asked = parser.parse_args()
    if importlib.util.find_spec("triton") is None:
        raise InputError("triton is not installed: pip install triton")
    for capability in ARCHITECTURES:
        for precision in ("highest", "default", "bf16"):
            for block in map(int, asked.blocks.split(",")):
                for name, kernel in kernels(precision, block, asked.width).items():
                    found = resources(kernel, capability, asked.warps, lstm_kernel.STAGES)
                    where = ARCHITECTURES[capability]
                    print(
                        f"{where:<7} {precision:<8} block {block:<3} {name:<9} {found}", flush=True
                    )


if __name__ == "__main__":
    run_command(main)
