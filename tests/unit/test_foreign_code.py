"""Code objects that hktune's compilers did not make: older metadata, other assemblers' register counts, other GPUs.

Numbers of LLVM's AMDGPUUsage: EF_AMDGPU_MACH (gfx950 0x4f, gfx942 0x4c, gfx9-4-generic 0x5f), EF_AMDGPU_FEATURE_* by
ABI version (EI_ABIVERSION 1 is code object V3, 2 V4, 3 V5, 4 V6), granules of the descriptor's register counts.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from gfx950_code import assemble, launch, source_of

from hktune.core.errors import DeviceError, TableError
from hktune.core.launch import Argument, Launch
from hktune.device.emulated import EmulatedDevice
from hktune.objects.code_object import read_code_object

STORE = """
s_load_dwordx2 s[6:7], s[0:1], 0
v_lshlrev_b32 v1, 2, v0
s_waitcnt lgkmcnt(0)
global_store_dword v1, v0, s[6:7]
s_endpgm
"""
OLD = "amdhsa.version: [1, 0]"


def changed(code: bytes, flags: int | None = None, abi: int | None = None) -> bytes:
    data = bytearray(code)
    if flags is not None:
        struct.pack_into("<I", data, 48, flags)
    if abi is not None:
        data[8] = abi
    return bytes(data)


@pytest.mark.parametrize("version", ["[1, 0]", "[1, 1]", "[1, 2]"])
@pytest.mark.parametrize("target", [True, False])
def test_every_version_of_the_metadata_is_read_and_run(version: str, target: bool) -> None:
    text = f"amdhsa.version: {version}" + ("\namdhsa.target: amdgcn-amd-amdhsa--gfx950" if target else "")
    code = assemble(STORE, pointers=1, version=text)
    assert launch(code, np.full(64, 9, np.uint32))[0].tolist() == list(range(64))


@pytest.mark.parametrize(
    ("abi", "flags", "features"),
    [
        (1, 0x04F, ("sramecc-", "xnack-")),
        (1, 0x24F, ("sramecc+", "xnack-")),
        (1, 0x34F, ("sramecc+", "xnack+")),
        (2, 0x54F, ()),
        (3, 0x54F, ()),
        (4, 0x54F, ()),
        (4, 0xE4F, ("sramecc+", "xnack-")),
        (4, 0x74F, ("xnack+",)),
        (3, 0x94F, ("sramecc-",)),
        (2, 0x04F, ()),
    ],
)
def test_arch_and_features_come_from_the_header(abi: int, flags: int, features: tuple[str, ...]) -> None:
    code = read_code_object(changed(assemble(STORE, pointers=1, version=OLD), flags, abi))
    assert (code.arch, code.features) == ("gfx950", features)


def test_a_generic_object_runs_where_its_processors_do() -> None:
    code = changed(assemble(STORE, pointers=1, version=OLD), 0x0100055F, 4)
    assert read_code_object(code).arch == "gfx9-4-generic"
    assert launch(code, np.zeros(64, np.uint32))[0].tolist() == list(range(64))


@pytest.mark.parametrize(("flags", "name"), [(0x54C, "gfx942"), (0x53F, "gfx90a"), (0x5AB, "AMDGPU machine 0xab")])
def test_code_for_another_gpu_is_refused_by_name(flags: int, name: str) -> None:
    code = changed(assemble(STORE, pointers=1, version=OLD), flags)
    with pytest.raises(DeviceError, match=f"the code object is for {name}, this device is gfx950"):
        EmulatedDevice().load(code, "kernel")


def test_a_header_that_contradicts_the_metadata_is_malformed() -> None:
    with pytest.raises(TableError, match="its header says gfx942, its metadata gfx950"):
        read_code_object(changed(assemble(STORE, pointers=1), 0x54C))


def with_counts(vgprs: int, agprs: int | None) -> bytes:
    """The kernel with other counts in its metadata; the descriptor says 512 in all, accumulation ones from 256."""
    code = assemble(STORE, pointers=1)
    key = b".agpr_count"
    at = code.index(key) + len(key)
    assert code[at : at + 3] == b"\xcd\x01\x00"  # msgpack's 16-bit 256
    data = bytearray(code)
    if agprs is None:
        data[at - len(key) : at] = b".agpr_xxxxx"
    else:
        data[at : at + 3] = b"\xcd" + agprs.to_bytes(2, "big")
    at = code.index(b".vgpr_count") + len(b".vgpr_count")
    data[at : at + 3] = b"\xcd" + vgprs.to_bytes(2, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("vgprs", "agprs", "registers"),
    [
        (512, 256, (256, 256)),  # as LLVM counts: all, and those of them that accumulate
        (512, None, (256, 256)),  # AITER's: nothing about accumulation registers
        (256, 256, (256, 256)),  # architectural and accumulation ones apart
        (128, 256, (256, 256)),  # more that accumulate than there are
        (510, 256, (254, 256)),
    ],
)
def test_register_counts_that_do_not_add_up_are_the_descriptors(
    vgprs: int, agprs: int | None, registers: tuple[int, int]
) -> None:
    used = read_code_object(with_counts(vgprs, agprs)).kernels["kernel"].resources
    assert (used.vgprs, used.agprs) == registers


def joined(first: str, second: str) -> bytes:
    """Two objects of one kernel each, linked into one file with two metadata notes: files of rocBLAS have many."""
    with TemporaryDirectory() as folder:
        outputs = []
        for name, body in (("first", first), ("second", second)):
            source = Path(folder) / f"{name}.s"
            text = source_of(body, pointers=1).replace("kernel.kd", f"{name}.kd").replace("kernel:", f"{name}:")
            for directive in (".globl", ".type", ".amdhsa_kernel"):
                text = text.replace(f"{directive} kernel", f"{directive} {name}")
            source.write_text(text.replace(".name: kernel", f".name: {name}"))
            outputs.append(source.with_suffix(".o"))
            command = ["clang", "--target=amdgcn-amd-amdhsa", "-mcpu=gfx950", "-c", "-o", outputs[-1], source]
            subprocess.run([sys.executable, "-m", "ziglang", *map(str, command)], check=True)
        whole = Path(folder) / "whole.so"
        command = [sys.executable, "-m", "ziglang", "ld.lld", "-shared", "-o", str(whole), *map(str, outputs)]
        subprocess.run(command, check=True)
        return whole.read_bytes()


def test_kernels_of_objects_that_were_linked_into_one_are_all_read() -> None:
    code = joined(STORE, STORE.replace("v1, v0, s[6:7]", "v1, v1, s[6:7]"))
    assert sorted(read_code_object(code).kernels) == ["first", "second"]
    for name, factor in (("first", 1), ("second", 4)):
        device = EmulatedDevice(deadline_s=60.0)
        buffer = device.allocate(256)
        shape = Launch((1, 1, 1), (64, 1, 1), 0, (Argument("out", "pointer"),))
        device.launch(device.load(code, name), shape, {"out": buffer})
        found = np.empty(64, np.uint32)
        device.read(buffer, found)
        assert found.tolist() == [factor * lane for lane in range(64)]


def test_linked_metadata_that_name_two_targets_are_malformed() -> None:
    code = joined(STORE, STORE)
    at = code.rindex(b"amdgcn-amd-amdhsa--gfx950")
    with pytest.raises(TableError, match="2 kernels for 2 targets"):
        read_code_object(code[:at] + b"amdgcn-amd-amdhsa--gfx942" + code[at + 25 :])
