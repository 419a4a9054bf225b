"""The benchmark of one GPU: its arithmetic, how it reads XLA's plan, that it runs without one."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import jax
import pytest

from benchmarks import gpu, workload
from benchmarks.gpu import Loop
from jules_jax import config
from jules_jax.agent import network
from jules_jax.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_compilation")

PLAN = """\
000: kKernel             fusion.1 {vmem_usage: 0}
001: kWhile              while.1
condition:
  000: kKernel           compare
body:
  000: kCommandBuffer    command_buffer
    000: kKernel         fusion.2
    001: kWhile          while.2
    condition:
      000: kKernel       compare.2
    body:
      000: kKernel       fusion.3
  001: kGemm             custom-call
  002: kWhile            while.3
  condition:
    000: kKernel         compare.3
  body:
    000: kKernel         fusion.4
    001: kKernel         fusion.5
002: kCopy               copy
"""


def test_a_loop_is_told_by_what_the_host_launches_in_it() -> None:
    assert gpu.launches(PLAN) == [
        Loop(depth=0, in_graph=False, launches=4, graphs=1),
        Loop(depth=1, in_graph=True, launches=2, graphs=0),
        Loop(depth=1, in_graph=False, launches=3, graphs=0),
    ]
    assert str(gpu.launches(PLAN)[1]) == "depth 1: inside a CUDA graph"


def test_the_operations_of_a_step_are_those_of_its_kernels() -> None:
    params = jax.eval_shape(lambda key: network.init(key, config.Network()), jax.random.key(0))
    floors = gpu.floors()
    assert floors.forward == 2 * workload.multiply_adds(params)
    assert floors.forward == pytest.approx(0.177e6, rel=2e-3)
    assert floors.training == pytest.approx(5.49e6, rel=1e-3)


def test_half_the_bytes_of_a_factor_are_less_than_half_of_all() -> None:
    full, half = gpu.floors().kernel_bytes, gpu.floors(factor_bytes=2).kernel_bytes
    assert 0.5 < half / full < 0.7


def test_results_are_named_by_device_and_day() -> None:
    device = SimpleNamespace(device_kind="NVIDIA H200 (MIG 1g.18gb)")
    path = gpu._path(device, "2026-11-23T07:24+00:00")
    assert path.name == "nvidia-h200-mig-1g-18gb-2026-11-23.json"


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", *words])
    gpu.main()


def test_a_cpu_is_refused_unless_the_figures_are_to_mean_nothing(monkeypatch) -> None:
    with pytest.raises(InputError, match="the device is cpu, expected a GPU, or --quick"):
        run(monkeypatch)
    with pytest.raises(InputError, match="--only: found 'sped', expected some of parity"):
        run(monkeypatch, "--quick", "--only", "sped")


@pytest.mark.parametrize(
    "sections",
    ["kernel,gates", pytest.param("parity,speed,loops", marks=pytest.mark.long)],
)
def test_it_runs_without_a_gpu_and_keeps_results_only_where_asked(
    monkeypatch, capsys, tmp_path, sections
) -> None:
    kept = set(gpu.RESULTS.iterdir())
    run(monkeypatch, "--quick", "--only", sections, "--json", str(tmp_path / "rows.json"))
    told = capsys.readouterr().out
    assert "no figure below says anything of what is wanted" in told
    assert "wanted ≥" not in told
    assert ": NO" not in told
    written = json.loads((tmp_path / "rows.json").read_text("utf-8"))
    assert list(written["rows"]) == sections.split(",")
    assert written["hardware"]["device"] == "cpu"
    assert set(gpu.RESULTS.iterdir()) == kept
