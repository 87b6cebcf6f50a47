"""Tables from before there were operations (version 2): read as they stand, hashed and signed in their own words.

tests/recorded/table_version_2 was written and signed by hktune as it was on 2026-11-28, of naive_gemm's kernels.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import EMULATED, OBJECT, SHA256
from torch.nn import functional

import hktune
from hktune.cli import main
from hktune.core.errors import TableError
from hktune.core.operation import BF16_NT_BIAS
from hktune.core.problem import Problem
from hktune.device.emulated import EmulatedDevice
from hktune.dispatch import Trust, content_sha256, read_table, saved_names, table_json, validate, write_table

RECORDED = Path(__file__).parents[1] / "recorded" / "table_version_2"
CONTENT = "87edace7ccafba1bdd69bdbd7d3cd584b88bf3a439fbc4fe6a0198c3b9ac1ddb"
SMALL, BIASED, VENDOR = Problem(8, 128, 64), Problem(8, 128, 64, BF16_NT_BIAS), Problem(4, 64, 32)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The recorded table as it was published: beside its object."""
    directory = tmp_path / "saved"
    shutil.copytree(RECORDED, directory)
    (directory / "objects").mkdir()
    (directory / "objects" / f"{SHA256}.hsaco").write_bytes(OBJECT)
    return directory


def edited(directory: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "table.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_its_entries_are_those_of_operations(saved: Path) -> None:
    table = read_table(saved)
    assert [entry.problem for entry in table.entries] == [VENDOR, BIASED, SMALL, Problem(32, 128, 64)]
    assert [entry.operation for entry in table.entries] == ["bf16.nt", "bf16.nt+bias", "bf16.nt", "bf16.nt"]
    assert [entry.rows for entry in table.entries] == [(4, 4), (4, 16), (4, 31), (32, 64)]
    assert validate(table, saved, EMULATED, allow_modelled=True).usable == table.entries
    assert saved_names(saved) == {SMALL: "o-proj", BIASED: "qk\u00e9"}


def test_it_keeps_its_bytes_its_sha256_and_its_signature(saved: Path, tmp_path: Path) -> None:
    table = read_table(saved, Trust(sha256=CONTENT, created_after="2026-11-22"))
    assert content_sha256(table) == CONTENT
    assert table_json(table) == (RECORDED / "table.json").read_bytes()
    write_table(table, {SHA256: OBJECT}, tmp_path / "again")
    assert (tmp_path / "again" / "table.json").read_bytes() == (RECORDED / "table.json").read_bytes()
    pytest.importorskip("cryptography", reason="pip install 'hktune[sign]'")
    assert read_table(saved, Trust(RECORDED / "key.pub", CONTENT)) == table
    with pytest.raises(TableError, match=f"content_sha256 pinned='{'0' * 64}' current={CONTENT}"):
        read_table(saved, Trust(sha256="0" * 64))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda table: table["entries"][1].update(time_us=1.5), "damaged or edited: content_sha256 saved="),
        (lambda table: table["entries"][1].update(epilogue="none"), "has two entries: keep one"),
        (lambda table: table["entries"][2].update(epilogue="gelu"), r"gelu.* is not known.* at `\$\.entries\[2\]`"),
        (lambda table: table["entries"][0].update(dtype="fp8"), r"fp8.* is not known.* at `\$\.entries\[0\]`"),
        (lambda table: table["entries"][0].update(dtype="f16"), r"f16.* is not known.* at `\$\.entries\[0\]`"),
        (lambda table: table["entries"][0].update(m_from=5), r"m=4 must be in .* at `\$\.entries\[0\]`"),
        (lambda table: table["entries"][0].update(operation="bf16.nt"), "unknown field `operation`"),
        (lambda table: table["entries"][0].pop("dtype"), "missing required field `dtype`"),
        (lambda table: table.update(version=3), "unknown field `dtype`"),
        (lambda table: table.update(version=1), "table version saved=1 current=3, and 2 is read too: build"),
        (lambda table: table.update(version=4), "saved=4 current=3, and 2 is read too: upgrade hktune"),
    ],
)
def test_what_is_wrong_with_it_is_one_line(saved: Path, edit: Callable[[dict[str, Any]], object], says: str) -> None:
    edited(saved, edit)
    with pytest.raises(TableError, match=says) as caught:
        read_table(saved)
    assert "\n" not in str(caught.value)


def test_a_key_that_stands_twice_is_refused(saved: Path) -> None:
    path = saved / "table.json"
    text = path.read_text()
    for once in ('"dtype": "bf16"', '"epilogue": "bias"', '"m": 8', '"arch": "gfx950"'):
        path.write_text(text.replace(once, f"{once}, {once}", 1))
        with pytest.raises(TableError, match="a key is twice in one object"):
            read_table(saved)


def test_it_serves_torchs_calls(saved: Path) -> None:
    table = hktune.load(saved, allow_modelled=True, device=EmulatedDevice())
    x, weight, bias = (torch.randn(*shape).bfloat16() for shape in ((8, 64), (128, 64), (128,)))
    with torch.no_grad():
        outs = table.linear(x, weight), table.linear(x, weight, bias), table.linear(x[:5], weight)
    exact = functional.linear(x.double(), weight.double())
    for out, wanted in zip(outs, (exact, exact + bias, exact[:5]), strict=True):
        torch.testing.assert_close(out.double(), wanted, rtol=2**-7, atol=2**-7)
    assert (table.stats().hits, table.stats().near_hits) == (2, 1)


def test_its_commands_name_its_own_sha256(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "show", str(saved)]) == 0
    assert f"content_sha256: {CONTENT}" in capsys.readouterr().out
    assert main(["table", "doctor", str(saved), "--allow-modelled", "--sha256", CONTENT]) == 0
    pytest.importorskip("cryptography", reason="pip install 'hktune[sign]'")
    assert main(["table", "verify", str(saved), "--key", str(RECORDED / "key.pub"), "--sha256", CONTENT]) == 0
    assert f"content_sha256 {CONTENT}, made 2026-11-22T18:00:00+00:00" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["gfx950-emulated", "sm90a-nvidia-h100-80gb-hbm3"])
def test_the_shipped_tables_are_as_their_files_say(name: str) -> None:
    directory = Path(__file__).parents[2] / "results" / name
    document = json.loads((directory / "table.json").read_text())
    table = read_table(directory)
    assert table.version == document["version"]
    assert len(table.entries) == len(document["entries"]) > 0
    assert content_sha256(table) == document["content_sha256"]
