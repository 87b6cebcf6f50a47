"""A kernel that does not end, and one that takes memory without end, are failures of their configs and of no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_run_ends import Start, start
from toy_space import space_in

from hktune.cli import main

__all__ = ["start"]

TEMPLATE = """
name: greedy
arch: gfx950
language: hip
source: greedy.hip
symbol: greedy
arguments:
  - {name: a, kind: pointer}
  - {name: bt, kind: pointer}
  - {name: c, kind: pointer}
  - {name: workspace, kind: pointer}
fields: {spins: spins, grows: grows}
tile: {m: 64, n: 64, k: 64}
launch:
  grid: [1, 1, 1]
  block: [64, 1, 1]
  workspace_bytes: 65536 + workspace_gib * 1073741824
proof: [{m: 64, n: 64, k: 64}]
"""
# Without `spins` and `grows` it writes nothing, which is wrong, and no more than that. `grows` walks on through memory.
SOURCE = """
extern "C" __attribute__((global)) void greedy(const int* a, const int* bt, int* c, int* workspace) {
    while (${spins}) __builtin_amdgcn_s_sleep(1);
    for (long at = 0; ${grows}; at += 1024) workspace[16384 + at] = 1;
}
"""
SPACE = """
name: greedy
template: gfx950/greedy
parameters:
  spins: {values: [false, true], default: false, help: does not end}
  grows: {values: [false, true], default: false, help: writes on and on}
  workspace_gib: {values: [0, 40], default: 0, help: asks for memory}
constraints: []
seeds:
  - {spins: true}
  - {grows: true}
  - {workspace_gib: 40}
  - {}
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    return space_in(tmp_path, "gfx950/greedy.hip", TEMPLATE, SOURCE, SPACE)


def test_greedy_kernels_cost_their_own_config(start: Start, tmp_path: Path, space: Path) -> None:
    (tmp_path / "shapes.yaml").write_text("shapes: [{m: 64, n: 64, k: 64}]\n")
    run = start("--space", str(space), "--trials", "4", "--deadline", "10", "--worker-memory", "2")
    code, printed, complained = run.end()
    assert (code, complained) == (1, ""), printed
    found = {row["config"]: (row["status"], row["detail"]) for row in run.rows()}
    assert len(found) == 4
    for config, (status, detail) in found.items():
        if '"spins":true' in config:
            assert (status, "still running after" in detail) == ("timeout", True)
        elif '"grows":true' in config:
            assert (status, "allocation" in detail) == ("hazard", True)
        elif '"workspace_gib":40' in config:
            assert (status, "takes more memory than a worker may have" in detail) == ("crashed", True)
        else:
            assert status == "wrong"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--deadline", "0"), ("--deadline", "nan"), ("--worker-memory", "-1"), ("--worker-memory", "x")],
)
def test_both_limits_have_a_rule(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--shapes", "shapes.yaml", option, value]) == 2
    complained = capsys.readouterr().err
    assert complained.startswith(f"hktune: argument {option}: must be a number of ")
    assert complained.count("\n") == 1
