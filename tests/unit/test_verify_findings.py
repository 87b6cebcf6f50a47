"""What `hktune verify --kernel` shows of a kernel that breaks a rule: the exact text, and what other tools get."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from gfx950_code import assemble
from hazard_kernels import ENTRY

from hktune.cli import main
from hktune.verify.finding_rules import RULES, rank

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = ("--args", "x:u32[4096]=arange y:inout:u32[4096]=zeros")


def kernel(folder: Path, lines: str, lds_bytes: int = 8192) -> Path:
    file = folder / "kernel.co"
    file.write_bytes(assemble(f"{ENTRY}\n{lines}\ns_endpgm", lds_bytes=lds_bytes))
    return file


def shown(folder: Path, capsys: pytest.CaptureFixture[str], lines: str, *words: str, code: int = 1) -> str:
    """What is printed of a kernel of `lines`."""
    assert main(["verify", "--kernel", str(kernel(folder, lines)), *ARGUMENTS, *words]) == code
    return capsys.readouterr().out


RACE = """
v_xor_b32 v3, 0x100, v1
ds_write_b32 v1, v1
ds_read_b32 v10, v3
s_waitcnt lgkmcnt(0)
global_store_dword v1, v10, s[8:9]
"""

TEXTS = {
    "a race in LDS": (
        RACE,
        ("--block", "128"),
        """error: lds-race at kernel+0x2c: reads LDS address 256, which `ds_write_b32 v1, v1` of wave 1 wrote, \
maybe only later: wave 1 must wait for it with s_waitcnt lgkmcnt, then both pass an s_barrier
  here: ds_read_b32 v10, v3 [kernel+0x2c], wave 0 of workgroup (0, 0, 0), lane 0, execution 1
  other: ds_write_b32 v1, v1 [kernel+0x24], wave 1 of workgroup (0, 0, 0), lane 0, execution 1
  at: LDS+0x100
  counters: 0 vector memory and 2 LDS operations are outstanding
  fix: s_waitcnt lgkmcnt(0) and s_barrier before ds_read_b32 (tried: it is gone, nothing is found then)""",
    ),
    "a missing barrier alone": (
        RACE.replace("ds_read", "s_waitcnt lgkmcnt(0)\nds_read"),
        ("--block", "128"),
        """  fix: s_barrier before ds_read_b32 (tried: it is gone, nothing is found then)""",
    ),
    "a wait missing before the barrier": (
        RACE.replace("ds_read", "s_barrier\nds_read"),
        ("--block", "128"),
        """  fix: s_waitcnt lgkmcnt(0) before s_barrier (tried: it is gone, nothing is found then)""",
    ),
    "a race between workgroups": (
        "v_add_u32 v4, s2, v1\nglobal_store_dword v1, v4, s[8:9]",
        ("--grid", "2"),
        """error: memory-race at kernel+0x20: stores to y+0x0, which wave 0 of workgroup (1, 0, 0) stored: \
workgroups run in any order
  here: global_store_dword v1, v4, s[8:9] [kernel+0x20], wave 0 of workgroup (0, 0, 0), lane 0, execution 1
  other: global_store_dword v1, v4, s[8:9] [kernel+0x20], wave 0 of workgroup (1, 0, 0), lane 0, execution 1
  at: y+0x0 of 0x4000 bytes
  counters: 1 vector memory and 0 LDS operations are outstanding
  fix: no single fix found; a wait and a barrier; between workgroups a release and an acquire""",
    ),
    "a race through memory in a workgroup": (
        "v_xor_b32 v3, 0x100, v1\nglobal_store_dword v1, v1, s[8:9]\ns_waitcnt vmcnt(0)\n"
        "global_load_dword v10, v3, s[8:9]",
        ("--block", "128"),
        """  at: y+0x0 of 0x4000 bytes
  counters: 1 vector memory and 0 LDS operations are outstanding
  fix: s_barrier before global_load_dword (tried: it is gone, nothing is found then)""",
    ),
    "a load that nobody waits for": (
        "global_load_dword v10, v1, s[6:7]\nglobal_load_dword v11, v1, s[6:7]\nv_add_u32 v20, v10, v1",
        (),
        """error: missing-wait at kernel+0x2c: reads v10, which `global_load_dword v10, v1, s[6:7]` may still be \
writing: 2 vector memory, 0 LDS and 0 scalar memory operations are outstanding, s_waitcnt vmcnt(1) would cover it
  here: v_add_u32 v20, v10, v1 [kernel+0x2c], wave 0 of workgroup (0, 0, 0), execution 1
  other: global_load_dword v10, v1, s[6:7] [kernel+0x1c], wave 0 of workgroup (0, 0, 0), execution 1
  counters: 2 vector memory, 0 LDS and 0 scalar memory operations are outstanding
  fix: s_waitcnt vmcnt(1) before v_add_u32 (tried: it is gone, nothing is found then)""",
    ),
    "an access behind the end": (
        "v_add_u32 v3, 0x3f80, v1\nglobal_load_dword v10, v3, s[6:7]",
        (),
        """error: memory-bounds at kernel+0x24: address 0x100009000 is in no allocation
  here: global_load_dword v10, v3, s[6:7] [kernel+0x24], wave 0 of workgroup (0, 0, 0), lane 32, execution 1
  at: 0 bytes behind the end of x
  fix: no single fix found; compare the index with the size, or correct the size in --args""",
    ),
    "LDS behind its end": (
        "v_add_u32 v4, 0x1f80, v1\nds_write_b32 v4, v1",
        (),
        """error: lds-bounds at kernel+0x24: lane 32 accesses LDS address 8192, which runs past the \
workgroup's 8192 bytes
  here: ds_write_b32 v4, v1 [kernel+0x24], wave 0 of workgroup (0, 0, 0), lane 32, execution 1
  at: LDS+0x2000""",
    ),
    "LDS that nothing wrote": (
        "ds_read_b32 v10, v1",
        (),
        """error: uninitialised-lds at kernel+0x1c: reads LDS address 0, which nothing has written
  here: ds_read_b32 v10, v1 [kernel+0x1c], wave 0 of workgroup (0, 0, 0), lane 0, execution 1
  at: LDS+0x0
  fix: no single fix found; write it first""",
    ),
    "a register that nothing wrote": (
        "v_add_u32 v20, v30, v1",
        (),
        """error: uninitialised-register at kernel+0x1c: reads v30, which nothing has written
  here: v_add_u32 v20, v30, v1 [kernel+0x1c], wave 0 of workgroup (0, 0, 0), execution 1
  counters: 0 vector memory, 0 LDS and 0 scalar memory operations are outstanding
  fix: no single fix found; write it first""",
    ),
    "wait states": (
        "v_readfirstlane_b32 s20, v1\nv_readlane_b32 s21, v1, s20",
        (),
        """error: wait-state at kernel+0x20: follows `v_readfirstlane_b32 s20, v1` too closely, as it selects a lane \
by a scalar that the VALU wrote (s20): 4 wait states are needed, 0 are there; put s_nop 3 before it
  here: v_readlane_b32 s21, v1, s20 [kernel+0x20], wave 0 of workgroup (0, 0, 0), execution 1
  other: v_readfirstlane_b32 s20, v1 [kernel+0x1c], wave 0 of workgroup (0, 0, 0), execution 1
  counters: 0 vector memory, 0 LDS and 0 scalar memory operations are outstanding
  fix: s_nop 3 before v_readlane_b32 (tried: it is gone, nothing is found then)""",
    ),
}


def without_code(text: str) -> str:
    """The text without the instructions around a place."""
    lines = [line for line in text.splitlines() if not line.startswith("    ") and line != "  code:"]
    return "\n".join(lines)


@pytest.mark.parametrize("name", TEXTS)
def test_each_kind_is_shown_with_all_that_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    lines, words, text = TEXTS[name]
    assert text in without_code(shown(tmp_path, capsys, lines, *words))


def test_ten_instructions_around_it_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(tmp_path, capsys, RACE + "s_nop 1\ns_nop 2", "--block", "128")
    code = out.partition("  code:\n")[2].partition("  fix:")[0].splitlines()
    assert [line.split(maxsplit=1)[1] if ">" not in line else line.split(maxsplit=2)[2] for line in code] == [
        "s_load_dwordx2 s[8:9], s[0:1], 0x8",
        "v_lshlrev_b32 v1, 2, v0",
        "v_lshlrev_b32 v2, 4, v0",
        "s_waitcnt lgkmcnt(0)",
        "v_xor_b32 v3, 0x100, v1",
        "ds_write_b32 v1, v1",
        "ds_read_b32 v10, v3",
        "s_waitcnt lgkmcnt(0)",
        "global_store_dword v1, v10, s[8:9]",
        "s_nop 1",
    ]


def test_findings_come_worst_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "v_readfirstlane_b32 s20, v1\nv_readlane_b32 s21, v1, s20\nv_add_u32 v20, v30, v1\n"
    lines += "global_load_dword v12, v1, s[6:7]\nv_add_u32 v21, v12, v1\ns_waitcnt vmcnt(0)\n"
    out = shown(tmp_path, capsys, lines + RACE, "--block", "128", "--try-seconds", "0")
    assert out.startswith("kernel: 4 errors\n")
    found = re.findall(r"^(\w+): ([a-z-]+) at", out, re.MULTILINE)
    assert found == [
        ("error", "lds-race"),
        ("error", "missing-wait"),
        ("error", "uninitialised-register"),
        ("error", "wait-state"),
    ]
    assert out.count("(not tried: the time for trials is over)") == 3


TWO_RACES = """
v_xor_b32 v3, 0x100, v1
v_add_u32 v4, 0x1000, v1
v_add_u32 v5, 0x1000, v3
global_load_dword v12, v1, s[6:7]
ds_write_b32 v1, v1
s_waitcnt lgkmcnt(0)
ds_read_b32 v10, v3
s_waitcnt vmcnt(0) lgkmcnt(0)
ds_write_b32 v4, v12
s_barrier
ds_read_b32 v11, v5
s_waitcnt lgkmcnt(0)
v_add_u32 v10, v10, v11
global_store_dword v1, v10, s[8:9]
"""
"""Two exchanges of two waves: the first lacks a barrier, the second a wait before its own."""


def test_a_fix_of_all_is_tried_where_no_single_one_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(tmp_path, capsys, TWO_RACES, "--block", "128")
    first, second = "s_barrier before ds_read_b32", "s_waitcnt lgkmcnt(0) before s_barrier"
    assert out.splitlines()[1] == f"fix of all: {first}; {second} (tried together: nothing is found then)"
    assert out.count("others remain: 1)") == 2
    repaired = TWO_RACES.replace("ds_read_b32 v10", "s_barrier\nds_read_b32 v10")
    assert "fix of all" not in shown(tmp_path, capsys, repaired, "--block", "128")
    repaired = repaired.replace("v12\ns_barrier", "v12\ns_waitcnt lgkmcnt(0)\ns_barrier")
    assert "no hazard found" in shown(tmp_path, capsys, repaired, "--block", "128", code=0)


def test_what_no_instruction_repairs_has_no_fix_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = TWO_RACES.replace("v_add_u32 v10, v10, v11", "v_add_u32 v10, v10, v30")
    found = json.loads(shown(tmp_path, capsys, lines, "--block", "128", "--json"))
    assert found["fix"] is None
    words = ("--block", "128", "--json", "--allow", "uninitialised-register")
    assert "tried together" in json.loads(shown(tmp_path, capsys, lines, *words))["fix"]


def test_a_waived_finding_is_counted_and_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--block", "128", "--try-seconds", "0")
    for place in ("", "@kernel+0x2c", "@+0x2c"):
        out = shown(tmp_path, capsys, RACE, *words, "--allow", f"lds-race{place}", code=0)
        assert out.startswith("kernel: no hazard found (1 waived); ")
    for other in ("lds-race@+0x24", "memory-race"):
        assert shown(tmp_path, capsys, RACE, *words, "--allow", other).startswith("kernel: 1 error\n")


def test_a_rule_that_there_is_none_of_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--kernel", str(kernel(tmp_path, "s_nop 0")), *ARGUMENTS, "--allow", "lds-rice@+0"]) == 2
    error = capsys.readouterr().err
    assert "--allow 'lds-rice@+0': 'lds-rice' is no rule, did you mean lds-race?" in error
    assert error.count("\n") == 1


ATOMIC_ORDER = """
v_mov_b32 v3, 0
v_mov_b32 v4, 1
s_mov_b64 exec, 1
global_atomic_add v6, v3, v4, s[8:9] sc0
s_waitcnt vmcnt(0)
v_readfirstlane_b32 s20, v0
s_nop 0
v_add_u32 v7, 64, v3
v_lshl_add_u32 v7, s20, 2, v7
global_store_dword v7, v6, s[8:9]
"""
"""Each of four waves stores the turn that it got: no race, and another answer in another order."""


def test_outputs_that_depend_on_the_schedule_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(tmp_path, capsys, ATOMIC_ORDER, "--block", "256", code=3)
    assert out.startswith("kernel: 1 warning\nwarning: schedule-dependent: y: ")
    assert "elements depend on the schedule, first [" in out
    assert shown(tmp_path, capsys, ATOMIC_ORDER, "--block", "64", code=0).startswith("kernel: no hazard found; ")
    assert "no hazard" in shown(tmp_path, capsys, ATOMIC_ORDER, "--block", "256", "--try-seconds", "0", code=0)


def test_sums_in_another_order_are_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four waves add numbers of different sizes to one float32; and then numbers that only one order keeps."""
    lines = """
    v_mov_b32 v3, 0
    s_mov_b64 exec, 1
    global_load_dword v4, v1, s[6:7]
    s_waitcnt vmcnt(0)
    global_atomic_add_f32 v3, v4, s[8:9]
    """
    words = ["verify", "--kernel", str(kernel(tmp_path, lines)), "--block", "256", "--args"]
    assert main([*words, "x:f32[256] y:inout:f32[1]=0.1"]) == 0
    assert "note: rounding-order: y: 1 of 1 elements depend on the schedule" in capsys.readouterr().out


def test_nan_from_finite_inputs_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "global_load_dword v10, v1, s[6:7]\ns_waitcnt vmcnt(0)\nv_log_f32 v11, v10\ns_nop 0\n"
    file = kernel(tmp_path, lines + "global_store_dword v1, v11, s[8:9]")
    words = ["verify", "--kernel", str(file), "--try-seconds", "0", "--args"]
    assert main([*words, "x:f32[64]=arange y:out:f32[64]"]) == 3
    out = capsys.readouterr().out
    assert "warning: not-finite: y: 1 of 64 elements are NaN or infinite, first [0]: -inf; all inputs are finite" in out
    assert main([*words, "x:f32[64]=ones y:out:f32[64]"]) == 0


def test_an_output_that_is_read_first_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "v_mov_b32 v4, 1.0\nglobal_atomic_add_f32 v1, v4, s[8:9]"
    file = kernel(tmp_path, lines)
    words = ["verify", "--kernel", str(file), "--args"]
    assert main([*words, "x:f32[64] y:out:f32[64]"]) == 1
    out = capsys.readouterr().out
    assert "error: uninitialised-memory at kernel+0x20: updates y+0x0, which nothing has written" in out
    assert "  at: y+0x0 of 0x100 bytes" in out
    assert main([*words, "x:f32[64] y:inout:f32[64]"]) == 0


def test_json_has_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(shown(tmp_path, capsys, RACE, "--block", "128", "--json"))
    assert (found["kernel"], found["level"], found["failure"]) == ("kernel", "error", None)
    finding, other = found["findings"]
    assert (other["rule"], other["here"]) == ("schedule-dependent", None)
    assert {key: finding[key] for key in ("rule", "level", "waived", "memory")} == {
        "rule": "lds-race",
        "level": "error",
        "waived": False,
        "memory": "LDS+0x100",
    }
    sides = {
        "here": ("ds_read_b32 v10, v3", "kernel+0x2c", 0),
        "other": ("ds_write_b32 v1, v1", "kernel+0x24", 1),
    }
    for side, (instruction, place, wave) in sides.items():
        assert finding[side] == {
            "instruction": instruction,
            "place": place,
            "line": None,
            "calls": [],
            "workgroup": [0, 0, 0],
            "wave": wave,
            "lane": 0,
            "execution": 1,
        }
    assert "tried: it is gone" in finding["fix"]
    assert len(finding["listing"]) == 10


def test_sarif_has_rules_results_and_suppressions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The members that SARIF 2.1.0 requires (sections 3.13, 3.14, 3.18, 3.19, 3.27, 3.35)."""
    file = tmp_path / "found.sarif"
    words = ("--block", "128", "--sarif", str(file), "--allow", "lds-race", "--try-seconds", "0")
    shown(tmp_path, capsys, RACE, *words, code=0)
    log: dict[str, Any] = json.loads(file.read_text())
    assert log["version"] == "2.1.0"
    [run] = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "hktune"
    assert {rule["id"] for rule in driver["rules"]} == set(RULES)
    [result] = run["results"]
    assert (result["ruleId"], result["level"]) == ("lds-race", "error")
    assert result["message"]["text"].startswith("reads LDS address 256")
    [location], [related] = result["locations"], result["relatedLocations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == str(tmp_path / "kernel.co")
    assert location["logicalLocations"][0]["fullyQualifiedName"] == "kernel+0x2c"
    assert related["logicalLocations"][0]["fullyQualifiedName"] == "kernel+0x24"
    assert result["suppressions"][0]["kind"] == "external"


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["verify", "--kernel", str(kernel(tmp_path, "s_nop 0")), *ARGUMENTS, "--sarif", str(tmp_path / "no" / "x")]
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_page_of_rules_is_the_rules() -> None:
    page = (ROOT / "docs" / "reference" / "findings.md").read_text()
    rules = sorted(RULES.values(), key=lambda rule: rank(rule, rule.level))
    assert "\n".join(f"| `{rule.name}` | {rule.level} | {rule.meaning} |" for rule in rules) in page
    assert "\n".join(f"| `{rule.name}` | {rule.cure} | {rule.source} |" for rule in rules) in page
