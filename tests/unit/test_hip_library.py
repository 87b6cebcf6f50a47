"""Where the HIP runtime is found, and its signatures and numbers against those that tinygrad's generator read from
AMD's own headers."""

from __future__ import annotations

import ast
import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import hip_stand_in
import pytest

import hktune
from hktune.core.errors import DeviceError, KernelFault
from hktune.device import hip, hip_identity, hip_library
from hktune.device.hip_library import HipLibrary

FIND = """
from pathlib import Path
from hktune.device import hip_library as module
from hktune.device.hip_library import hip_library
from hktune.core.errors import DeviceError
module.ROCM_HOME = Path("/nowhere")
try:
    library = hip_library(Path({rocm!r}) if {rocm!r} else None)
    print(library.path)
    library.number("hipGetDeviceCount")
except DeviceError as error:
    print(error)
"""


def found(tmp_path: Path, rocm: Path | None, before: str = "", **environment: str) -> list[str]:
    """What a fresh process finds and says, on a machine with no ROCm and no torch but those below `tmp_path`."""
    for package in ("torch", "_rocm_sdk_core"):
        (tmp_path / "site" / package).mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / package / "__init__.py").touch()
    paths = os.pathsep.join([str(tmp_path / "site"), str(Path(hktune.__file__).parents[1])])
    code = before + FIND.format(rocm=str(rocm or ""))
    finished = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stdout.splitlines()


def copied(library: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True)
    shutil.copy(library, target)
    return target


@pytest.fixture
def library(stand_in_rocm: Path) -> Path:
    return stand_in_rocm / "lib" / "libamdhip64.so"


class TestSearch:
    def test_rocm_path_is_searched_and_no_device_is_one_line(self, stand_in_rocm: Path, tmp_path: Path) -> None:
        path, refusal = found(tmp_path, stand_in_rocm)
        assert path == str(stand_in_rocm / "lib" / "libamdhip64.so")
        assert refusal == (
            "hipGetDeviceCount: the HIP runtime says hipErrorNoDevice (100): see `amd-smi` and dmesg for the device's "
            "state"
        )

    def test_of_several_versions_the_newest_is_taken(self, library: Path, tmp_path: Path) -> None:
        for name in ("libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.7.0.51831", "libamdhip64.so.10.1"):
            (tmp_path / "rocm" / "lib").mkdir(parents=True, exist_ok=True)
            shutil.copy(library, tmp_path / "rocm" / "lib" / name)
        assert found(tmp_path, tmp_path / "rocm")[0].endswith("/libamdhip64.so.10.1")

    @pytest.mark.parametrize("package", ["torch", "_rocm_sdk_core"])
    def test_the_copy_that_torch_will_load_comes_before_rocms(
        self, library: Path, stand_in_rocm: Path, tmp_path: Path, package: str
    ) -> None:
        own = copied(library, tmp_path / "site" / package / "lib" / "libamdhip64.so")
        assert found(tmp_path, stand_in_rocm)[0] == str(own)

    def test_the_copy_that_is_already_loaded_comes_first(
        self, library: Path, stand_in_rocm: Path, tmp_path: Path
    ) -> None:
        own = copied(library, tmp_path / "elsewhere" / "libamdhip64.so.7")
        assert found(tmp_path, stand_in_rocm, f"import ctypes; ctypes.CDLL({str(own)!r})\n")[0] == str(own)

    def test_the_loader_is_asked_last(self, library: Path, tmp_path: Path) -> None:
        assert found(tmp_path, None, LD_LIBRARY_PATH=str(library.parent))[0] == "libamdhip64.so"

    def test_no_runtime_is_one_line_to_act_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hip_library, "_candidates", lambda path: iter(()))
        with pytest.raises(DeviceError) as caught:
            hip_library.hip_library(tmp_path / "a path that nobody asked for yet")
        assert str(caught.value) == ("no HIP runtime (libamdhip64.so): install ROCm 7 or newer, or set ROCM_PATH to it")

    def test_a_file_that_is_no_library_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "libamdhip64.so").write_text("/opt/rocm-7.0.0/lib/libamdhip64.so")
        with pytest.raises(DeviceError, match=r"does not load \(.*\): install ROCm 7 or newer$"):
            HipLibrary(str(tmp_path / "libamdhip64.so"))

    def test_a_runtime_of_rocm_5_is_too_old(self, library: Path, tmp_path: Path) -> None:
        old = copied(library, tmp_path / "rocm" / "lib" / "libamdhip64.so")
        # Debian's libamdhip64.so.5 (ROCm 5.2.3) exports every other function, and not this one.
        old.write_bytes(old.read_bytes().replace(b"hipGetDevicePropertiesR0600", b"hipGetDevicePropertiesR0500"))
        assert found(tmp_path, tmp_path / "rocm") == [
            f"{old} is too old, it lacks hipGetDevicePropertiesR0600: install ROCm 7 or newer"
        ]


class TestErrors:
    def test_every_fault_has_its_word(self, stand_in: hip_stand_in.StandIn) -> None:
        library = hip_library.hip_library(stand_in.rocm_path)
        for status, word in ((700, "crashed"), (702, "timeout"), (710, "crashed"), (719, "crashed"), (214, "crashed")):
            stand_in.refuse("hipDeviceSynchronize", status)
            with pytest.raises(KernelFault, match=rf"^hipDeviceSynchronize: .* hipError\w+ \({status}\)$") as caught:
                library.call("hipDeviceSynchronize")
            assert caught.value.status == word

    def test_an_error_is_not_left_for_torch_to_find(self, stand_in: hip_stand_in.StandIn) -> None:
        library = hip_library.hip_library(stand_in.rocm_path)
        stand_in.refuse("hipDeviceSynchronize", 1)
        with pytest.raises(DeviceError):
            library.call("hipDeviceSynchronize")
        stand_in.refuse("hipFree", 1)
        library.discard("hipFree", 4096)
        assert stand_in.last_error == hip_stand_in.SUCCESS


class TestHeaders:
    """tinygrad generates its bindings from the headers of ROCm 7 with clang."""

    @pytest.fixture
    def headers(self) -> Any:
        return pytest.importorskip("tinygrad.runtime.autogen.hip")

    def test_signatures_are_the_headers(self, headers: Any) -> None:
        declared = self.signatures(headers)
        for name, arguments in hip_library._SIGNATURES.items():
            result, *expected = declared[name]
            assert [self.shape(kind) for kind in arguments] == [self.shape(kind) for kind in expected], name
            assert self.shape(result) == "i4"

    def test_numbers_are_the_headers(self, headers: Any) -> None:
        assert headers.hipDeviceAttributeMultiprocessorCount == hip_identity._COMPUTE_UNITS
        assert headers.hipDeviceAttributeL2CacheSize == hip._L2_BYTES
        assert headers.hipDeviceAttributeMaxSharedMemoryPerMultiprocessor == hip._LDS_BYTES
        assert headers.hipStreamNonBlocking == hip._STREAM_NON_BLOCKING
        assert headers.hipStreamCaptureModeRelaxed == hip._CAPTURE_RELAXED
        assert set(hip_library._FAULTS) <= set(headers.hipError_t.values())
        properties = headers.hipDeviceProp_tR0600
        assert hip_library._ARCH_NAME.start == hip_stand_in.ARCH_NAME_OFFSET == properties.gcnArchName.offset
        assert properties.SIZE < hip_library._PROPERTIES_BYTES

    @staticmethod
    def signatures(headers: Any) -> dict[str, list[Any]]:
        """The result and the arguments of every function, from the decorators of its declarations."""
        declared = {}
        for node in ast.parse(Path(headers.__file__).read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.decorator_list:
                decorator = node.decorator_list[0]
                assert isinstance(decorator, ast.Call)
                declared[node.name] = [eval(ast.unparse(kind), vars(headers)) for kind in decorator.args]
        return declared

    @staticmethod
    def shape(kind: Any) -> str:
        """What the calling convention sees of a type: an integer's or a pointer's size."""
        pointers = (ctypes.c_void_p, ctypes.c_char_p)
        pointer = kind in pointers or issubclass(kind, ctypes._Pointer)
        return "pointer" if pointer else f"i{ctypes.sizeof(kind)}"
