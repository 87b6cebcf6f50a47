"""AITER's kernels of 4 and 8 bits, as they are described: rules and launches for all; proofs of those that the package
amd-aiter has. Launches are compared with what AITER's own launch code passes (csrc/py_itfs_cu)."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from hktune.compile import compiler_for
from hktune.core.candidate import Candidate
from hktune.core.errors import TemplateError
from hktune.core.operation import operation_of
from hktune.core.outcome import Failure
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import SPACES
from hktune.space import SearchSpace, load_space
from hktune.verify.record import RecordStore
from hktune.workers.prover import Prover

MXFP4, MXFP4_ROWS, I8, FP8 = (f"gfx950_aiter_{name}" for name in ("mxfp4", "mxfp4_rows", "i8", "fp8"))
TILES = [f"tile_{tile}" for tile in ("32x128", "32x256", "32x512", "64x128", "64x384", "96x256", "128x128", "160x128")]
LARGE_TILES = ["tile_192x128", "tile_128x512", "tile_256x256"]


def space(name: str) -> SearchSpace:
    return load_space(SPACES / f"{name}.yaml")


def has_aiter() -> bool:
    try:
        return metadata.version("amd-aiter") == "0.1.7.post2.dev18"
    except metadata.PackageNotFoundError:
        return False


with_aiter = pytest.mark.skipif(not has_aiter(), reason="pip install 'hktune[aiter]'")


def prover(described: SearchSpace, folder: Path) -> Prover:
    return Prover(described.template, compiler_for("object", Settings(folder)), RecordStore(folder / "proofs"), 0)


@with_aiter
@pytest.mark.parametrize("tile", [*TILES, *LARGE_TILES])
def test_preshuffled_mxfp4_is_right_on_part_of_a_tile(tile: str, tmp_path: Path) -> None:
    """Every element, of exact sums of the dequantised operands, with hazards looked for."""
    described = space(MXFP4)
    config = described.parse([f"kernel={tile}"])
    facts = described.template.derived_values(config)
    m, columns = int(facts["tile_m"]) // 2 + 3, int(facts["columns"])
    n = columns if columns > 32 else int(facts["tile_n"]) + columns
    outcome = prover(described, tmp_path).on(config, Problem(m, n, 512, operation_of("mxfp4.nt->bf16")))
    assert not isinstance(outcome, Failure), outcome


@with_aiter
def test_mxfp4_that_is_not_preshuffled_is_right(tmp_path: Path) -> None:
    described = space(MXFP4_ROWS)
    problem = Problem(256, 256, 512, operation_of("mxfp4.nt->bf16"))
    outcome = prover(described, tmp_path).on(described.config({}), problem)
    assert not isinstance(outcome, Failure), outcome


@with_aiter
def test_all_proofs_of_one_mxfp4_kernel_pass_and_it_has_a_modelled_time(tmp_path: Path) -> None:
    described = space(MXFP4)
    attempt = prover(described, tmp_path)(
        Candidate(described.parse(["kernel=tile_32x128"]), described.template.operation)
    )
    assert attempt.failure is None, attempt.failure
    assert attempt.relative_error is not None
    assert 2.0**-11 < attempt.relative_error < 2.0**-8, "of one rounding to bf16"
    assert attempt.profile is not None
    assert attempt.profile.mfma_clk == 2 * 32 * 128 * 256 / 16384


@with_aiter
def test_a_race_in_a_kernel_of_others_is_found(tmp_path: Path) -> None:
    """A scale is read from LDS, and loaded over, with no wait and no barrier between."""
    described = space(MXFP4)
    problem = Problem(192, 256, 512, operation_of("mxfp4.nt->bf16"))
    outcome = prover(described, tmp_path).on(described.parse(["kernel=tile_192x256"]), problem)
    assert isinstance(outcome, Failure)
    assert outcome.status.value == "hazard"
    assert "loads to LDS address" in outcome.detail


@pytest.mark.parametrize("name", [MXFP4, MXFP4_ROWS, I8, FP8])
def test_every_described_kernel_is_a_choice_and_its_name_says_its_tile(name: str) -> None:
    described = space(name)
    (parameter,) = described.parameters
    for word in parameter.values:
        config = described.parse([f"kernel={word}"])
        tile = described.template.tile(config)
        assert word == f"tile_{tile.m}x{tile.n}"
        assert described.template.symbol(config).endswith(f"reShuffle_{tile.m}x{tile.n}E")
        problem = Problem(2 * tile.m, 2 * tile.n, 1024, described.template.operation)
        assert not described.violations(config, problem)
        assert described.template.launch(config, problem).grid == (2, 2, 1)


def passed(name: str, problem: Problem) -> dict[int, object]:
    """What is at each place of the argument struct."""
    described = space(name)
    launch = described.template.launch(described.config({}), problem)
    numbers = problem.numbers()
    found: dict[int, object] = {}
    for each in launch.arguments:
        assert each.offset_bytes is not None
        number = each.constant if each.constant is not None else numbers.get(each.name)
        found[each.offset_bytes] = each.name if number is None else number * each.scale
    return found


def test_arguments_are_those_of_aiters_launch_code() -> None:
    m, n, k = 48, 512, 1024
    mxfp4 = {
        0: "c", 32: "a", 48: "b", 64: 1.0, 128: n, 160: k, 192: k, 224: m, 240: n, 256: k,
        272: "scale_a", 288: "scale_b", 304: k // 32, 336: k // 32,
    }  # fmt: skip
    for name in (MXFP4, MXFP4_ROWS):
        assert passed(name, Problem(m, n, k, operation_of("mxfp4.nt->bf16"))) == mxfp4
    bytes_ = {
        0: "c", 16: "a", 32: "b", 48: "scale_a", 64: "scale_b", 80: "workspace", 96: m, 112: n, 128: k,
        144: k, 160: k, 176: 2 * n, 192: 1,
    }  # fmt: skip
    assert passed(I8, Problem(m, n, k, operation_of("i8.nt.rows->bf16"))) == bytes_
    of_fp8 = passed(FP8, Problem(m, n, k, operation_of("e4m3.nt.blocks->bf16")))
    assert {place: value for place, value in of_fp8.items() if place < 208} == bytes_
    assert of_fp8[240] == k // 128


@pytest.mark.parametrize(
    ("name", "words", "sizes", "says"),
    [
        (MXFP4, "tile_32x128", (5, 144, 512), "n=144 must be a multiple of 32"),
        (MXFP4, "tile_128x512", (5, 544, 512), "n=544 must be a multiple of 512"),
        (MXFP4, "tile_256x256", (5, 512, 256), "k=256 must be at least 512"),
        (MXFP4, "tile_64x128", (5, 128, 384), "k=384 must be whole steps of 256"),
        (MXFP4_ROWS, "tile_256x256", (128, 256, 512), "m=128 must be a multiple of 256"),
        (I8, "tile_96x128", (5, 192, 128), "n=192 must be whole tiles of 128 columns"),
        (I8, "tile_96x128", (5, 32768, 128), "n=32768 must be at most 16384"),
        (FP8, "tile_96x128", (5, 128, 192), "k=192 must be whole steps of 128"),
    ],
)
def test_what_a_kernel_cannot_do_is_one_line(name: str, words: str, sizes: tuple[int, int, int], says: str) -> None:
    described = space(name)
    config = described.parse([f"kernel={words}"])
    (violation, *_) = described.violations(config, Problem(*sizes, described.template.operation))
    assert says in str(violation)


@pytest.mark.parametrize(("name", "operand"), [(MXFP4, "b"), (MXFP4_ROWS, "scale_a"), (I8, "b"), (FP8, "b")])
def test_production_refuses_operands_that_it_does_not_have(name: str, operand: str) -> None:
    described = space(name)
    with pytest.raises(TemplateError, match=rf"takes {operand} as \w+: production has it row by row, so no table"):
        described.launch_rule(described.config({}), Problem(64, 512, 1024, described.template.operation))
