"""AMD's own hipcc compiles the template: proved, and the same machine code as ziglang's clang makes of it."""

from __future__ import annotations

import os
from functools import cache

import pytest
from gemm_bf16_variants import COMPILE_DEADLINE_S, space

from hktune.compile.hip import HipCompiler
from hktune.compile.hipkittens import find_hipkittens
from hktune.compile.toolchain import HipToolchain, find_rocm, find_zig
from hktune.core.config import Config
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject
from hktune.device.hip import HipDevice
from hktune.objects.code_object import read_code_object
from hktune.verify import Proof, verify

pytestmark = pytest.mark.rocm_virtual("hipcc")

ENTRY = slice(16, 24)  # kernel_code_entry_byte_offset
SEEDS = space().seeds[:30:2]


@cache
def compiler(vendor: str) -> HipCompiler:
    settings = Settings.from_environment(os.environ)
    toolchain = find_rocm(settings) if vendor == "rocm" else find_zig()
    assert isinstance(toolchain, HipToolchain)
    return HipCompiler(toolchain, find_hipkittens(settings))


def compiled(vendor: str, config: Config) -> CodeObject:
    code = compiler(vendor).compile(space().template.render(config), COMPILE_DEADLINE_S)
    assert isinstance(code, CodeObject), code
    return code


def test_the_toolchain_is_amds() -> None:
    assert compiler("rocm").identity.startswith("hipcc 22.")


@pytest.mark.parametrize("config", SEEDS, ids=lambda config: config.id)
def test_a_variant_is_right_and_the_same_as_ziglangs(rocm_virtual: HipDevice, config: Config) -> None:
    code, template = compiled("rocm", config), space().template
    kernel = rocm_virtual.load(code.data, code.symbol)
    for proof in template.proof_problems(config)[:2]:
        launch = template.launch(config, proof.problem)
        outcome = verify(rocm_virtual, kernel, launch, proof.problem, 1, proof.padding, proof.exact_sums)
        assert isinstance(outcome, Proof), outcome
    other = compiled("zig", config)
    assert code.resources == other.resources
    assert machine_code(code) == machine_code(other)


def machine_code(code: CodeObject) -> tuple[bytes, bytes]:
    """The loaded segment with the kernel's code, and the kernel's descriptor but for where in the file that code is."""
    image = read_code_object(code.data)
    kernel = image.kernels[code.symbol]
    segment = next(data for address, data in image.segments if 0 <= kernel.entry_address - address < len(data))
    return segment, kernel.descriptor[: ENTRY.start] + kernel.descriptor[ENTRY.stop :]
