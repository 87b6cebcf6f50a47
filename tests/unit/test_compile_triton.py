"""The Triton compiler keeps the Compiler contract: with a stand-in for Triton in its child, and with Triton itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from hktune.compile import CachedCompiler, Compiler, TritonCompiler, compile_many, compiler_for
from hktune.core.config import Config
from hktune.core.errors import MachineError, ToolchainError
from hktune.core.launch import Argument, Launch
from hktune.core.outcome import Failure, Status
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject, Variant
from hktune.device.emulated import EmulatedDevice
from hktune.objects.code_object import read_code_object

STAND_IN = Path(__file__).parents[1] / "triton_stand_in"
DEADLINE_S = 120.0

# The stand-in runs the body; what it returns are the instructions.
SAMPLE = """
import os, time
import triton
@triton.jit
def sample(x, addend):
    @BODY@
SIGNATURE, ATTRIBUTES = {"x": "*fp32"}, {"x": [["tt.divisibility", 16]]}
CONSTANTS, OPTIONS = {"addend": @ADDEND@}, {"num_warps": 2, "shared": 512, "scratch": @SCRATCH@}
KNOBS = {"use_async_copy": True}
"""
INSTRUCTION = 'return f"s_add_u32 s4, s4, {addend}"'


def variant(source: str, symbol: str = "sample") -> Variant:
    return Variant("gfx950/sample", "0" * 64, "gfx950", "triton", symbol, source, Config({}))


def sample(body: str = INSTRUCTION, addend: int = 1, scratch: int = 0) -> Variant:
    return variant(SAMPLE.replace("@BODY@", body).replace("@ADDEND@", str(addend)).replace("@SCRATCH@", str(scratch)))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `import triton` finds, here and in children."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))


@pytest.fixture(params=["triton", "cached"])
def compiler(request: pytest.FixtureRequest, tmp_path: Path, stand_in: None) -> Compiler:
    return TritonCompiler() if request.param == "triton" else CachedCompiler(TritonCompiler(), tmp_path)


def test_a_variant_becomes_a_code_object_that_says_how_much_lds_it_needs(compiler: Compiler) -> None:
    built = compiler.compile(sample(), DEADLINE_S)
    assert isinstance(built, CodeObject), built
    assert built.sha256 == hashlib.sha256(built.data).hexdigest()
    assert (built.symbol, built.arch, built.compiler) == ("sample", "gfx950", compiler.identity)
    assert built.compile_s > 0
    image = read_code_object(built.data)
    assert image.arch == "gfx950"
    kernel = image.kernels["sample"]
    assert built.resources == kernel.resources
    assert built.resources.lds_bytes == 512
    assert int.from_bytes(kernel.descriptor[:4], "little") == 512, "the descriptor is what a GPU reads"
    assert built.resources.max_workgroup_size == 2 * 64


def test_equal_sources_give_equal_objects_and_others_do_not(compiler: Compiler) -> None:
    first, again, other = (compiler.compile(sample(addend=addend), DEADLINE_S) for addend in (1, 1, 2))
    assert isinstance(first, CodeObject)
    assert isinstance(again, CodeObject)
    assert isinstance(other, CodeObject)
    assert first.data == again.data
    assert first.data != other.data


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return offset", "sample.py:6: error: name 'offset' is not defined"),
        ("return (", "sample.py:6: error: '(' was never closed"),
        ('raise RuntimeError("PassManager::run failed\\nand more")', "sample.py:6: error: PassManager::run failed"),
    ],
)
def test_a_refused_source_is_a_compile_error_that_names_the_line(compiler: Compiler, body: str, said: str) -> None:
    failure = compiler.compile(sample(body), DEADLINE_S)
    assert isinstance(failure, Failure)
    assert failure.status is Status.COMPILE_ERROR
    assert failure.detail.startswith(said)


def test_what_a_source_lacks_is_a_compile_error_that_lists_what_it_needs(compiler: Compiler) -> None:
    failure = compiler.compile(variant(sample().source, "gemm"), DEADLINE_S)
    needs = "a source has the kernel, SIGNATURE, CONSTANTS, ATTRIBUTES, OPTIONS, KNOBS"
    assert failure == Failure(Status.COMPILE_ERROR, f"sample.py:1: error: it has no gemm: {needs}")


def test_a_knob_reaches_triton_and_one_that_it_lacks_is_refused(compiler: Compiler) -> None:
    knobs = sample("raise ValueError(triton.knobs.amd.use_async_copy)")
    assert compiler.compile(knobs, DEADLINE_S) == Failure(Status.COMPILE_ERROR, "sample.py:6: error: True")
    lacking = variant(sample().source.replace("use_async_copy", "use_magic"))
    said = "sample.py:1: error: triton 0.1 has no knob use_magic"
    assert compiler.compile(lacking, DEADLINE_S) == Failure(Status.COMPILE_ERROR, said)


def test_a_kernel_that_wants_scratch_is_refused(compiler: Compiler) -> None:
    said = "it needs 64 bytes of global_scratch for each workgroup, which no launch here gives"
    failure = compiler.compile(sample(scratch=64), DEADLINE_S)
    assert failure == Failure(Status.COMPILE_ERROR, f"sample.py:1: error: {said}")


def test_a_compiler_that_dies_is_a_compile_error(compiler: Compiler) -> None:
    failure = compiler.compile(sample("os.abort()"), DEADLINE_S)
    assert failure == Failure(Status.COMPILE_ERROR, "sample.py: the compiler ended with status -6: and it said nothing")


def test_past_the_deadline_is_a_timeout(compiler: Compiler) -> None:
    failure = compiler.compile(sample("time.sleep(600)"), 1.0)
    assert failure == Failure(Status.TIMEOUT, "sample.py: still compiling after 1 s")


@pytest.mark.parametrize("body", ["raise MemoryError", "raise OSError(28, os.strerror(28))", "import absent_package"])
def test_what_the_machine_lacks_is_no_verdict(compiler: Compiler, body: str) -> None:
    with pytest.raises(MachineError, match=r"sample\.py cannot be compiled here"):
        compiler.compile(sample(body), DEADLINE_S)


def test_threads_may_share_it(compiler: Compiler) -> None:
    variants = [sample(addend=addend) for addend in (1, 2, 3, 1)]
    built = list(compile_many(compiler, variants, DEADLINE_S, workers=2))
    assert sorted(item.source for item, _ in built) == sorted(item.source for item in variants)
    assert all(isinstance(outcome, CodeObject) for _, outcome in built)


def test_the_environment_neither_steers_triton_nor_names_a_folder_of_the_users(
    stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRITON_ALWAYS_COMPILE", "AMDGCN_USE_BUFFER_OPS", "MLIR_ENABLE_DUMP", "DISABLE_LLVM_OPT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(Path.home()))
    steering = "[name for name in os.environ if name.startswith(('TRITON_', 'AMDGCN_', 'MLIR_', 'DISABLE_LLVM'))]"
    body = f"raise ValueError(sorted({steering}), os.environ['TRITON_CACHE_DIR'] == os.getcwd() + '/cache')"
    failure = TritonCompiler().compile(sample(body), DEADLINE_S)
    assert isinstance(failure, Failure)
    assert failure.detail.endswith("(['TRITON_CACHE_DIR', 'TRITON_DISABLE_LINE_INFO', 'TRITON_HOME'], True)")


def test_its_identity_is_of_the_installed_build(
    stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = TritonCompiler().identity
    assert identity.startswith("triton 0.1 build=")
    assert not set(identity) & {"\n", "/"}
    for folder in ("triton", "triton-0.1.dist-info"):
        (tmp_path / folder).symlink_to(STAND_IN / folder)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert TritonCompiler().identity == identity, "wherever it is installed"
    (tmp_path / "triton-0.1.dist-info").unlink()
    rebuilt = tmp_path / "triton-0.1.dist-info"
    rebuilt.mkdir()
    (rebuilt / "METADATA").write_bytes((STAND_IN / "triton-0.1.dist-info" / "METADATA").read_bytes())
    record = (STAND_IN / "triton-0.1.dist-info" / "RECORD").read_text()
    (rebuilt / "RECORD").write_text(record.replace("libtriton.so,sha256=C3", "libtriton.so,sha256=E5"))
    assert TritonCompiler().identity != identity, "another LLVM"
    (rebuilt / "RECORD").write_text("")
    with pytest.raises(ToolchainError, match=r"is not recorded: pip install 'hktune\[triton\]'"):
        TritonCompiler()


def test_without_triton_what_one_triton_built_can_still_be_had(
    stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(tmp_path)
    built = compiler_for("triton", settings).compile(sample(), DEADLINE_S)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert compiler_for("triton", settings).compile(sample(), DEADLINE_S) == built
    with pytest.raises(ToolchainError, match=r"no compiler for Triton: pip install 'hktune\[triton\]'"):
        compiler_for("triton", settings).compile(sample(addend=2), DEADLINE_S)
    with pytest.raises(ToolchainError, match=r"^no compiler for Triton: pip install 'hktune\[triton\]'"):
        compiler_for("triton", Settings(tmp_path / "empty"))


LESS_THE_SUM = """
import triton
import triton.language as tl

@triton.jit
def less_the_sum(x, y, size: tl.constexpr):
    places = tl.arange(0, size)
    values = tl.load(x + places)
    tl.store(y + places, values @SIGN@ tl.sum(values))

SIGNATURE, CONSTANTS, ATTRIBUTES = {"x": "*fp32", "y": "*fp32"}, {"size": 512}, {}
OPTIONS, KNOBS = {"num_warps": 4}, {"use_buffer_ops": False}
"""


def less_the_sum(sign: str) -> Variant:
    return variant(LESS_THE_SUM.replace("@SIGN@", sign), "less_the_sum")


class TestTriton:
    """With Triton itself."""

    @pytest.fixture
    def compiler(self) -> Compiler:
        pytest.importorskip("triton", reason="pip install 'hktune[triton]'")
        return TritonCompiler()

    def test_a_kernel_runs_on_the_emulator_with_the_lds_that_it_asks_for(self, compiler: Compiler) -> None:
        built = compiler.compile(less_the_sum("-"), DEADLINE_S)
        assert isinstance(built, CodeObject), built
        assert built.resources.lds_bytes > 0
        device = EmulatedDevice("gfx950")
        x, y = np.arange(512, dtype=np.float32), np.zeros(512, np.float32)
        buffers = {"x": device.allocate(x.nbytes), "y": device.allocate(y.nbytes)}
        device.write(buffers["x"], x)
        arguments = tuple(Argument(name, "pointer") for name in ("x", "y", "scratch", "profile"))
        launch = Launch((1, 1, 1), (256, 1, 1), 0, arguments)
        device.launch(device.load(built.data, "less_the_sum"), launch, launch.bound(buffers))
        device.read(buffers["y"], y)
        assert np.array_equal(y, x - 512 * 511 / 2)

    def test_equal_sources_give_equal_objects_in_any_folder_and_environment(
        self, compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = compiler.compile(less_the_sum("-"), DEADLINE_S)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("AMDGCN_USE_BUFFER_OPS", "0")
        again = compiler.compile(less_the_sum("-"), DEADLINE_S)
        assert isinstance(first, CodeObject)
        assert isinstance(again, CodeObject)
        assert first.data == again.data
        assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"], "nothing is left in the user's home"

    @pytest.mark.parametrize(
        ("sign", "said"),
        [("- offset *", "NameError('offset is not defined')"), ("- tl.arange(0, 3) *", "arange's range must be")],
    )
    def test_a_refused_source_is_a_compile_error_that_names_the_line(
        self, compiler: Compiler, sign: str, said: str
    ) -> None:
        failure = compiler.compile(less_the_sum(sign), DEADLINE_S)
        assert isinstance(failure, Failure)
        assert failure.status is Status.COMPILE_ERROR
        assert failure.detail.startswith(f"sample.py:9: error: {said}")
