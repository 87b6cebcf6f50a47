from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

import hktune.compile
from hktune.compile import AbsentCompiler, CachedCompiler, HipCompiler, compile_many, hip_compiler
from hktune.compile.hipkittens import find_hipkittens
from hktune.compile.object_cache import _Entry, recorded_identities
from hktune.compile.toolchain import find_zig
from hktune.core.config import Config
from hktune.core.errors import ToolchainError
from hktune.core.outcome import Failure, Status
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject, Resources, Variant

RESOURCES = Resources(8, 0, 16, 0, 0, 0, 0, 64)
VARIANT = Variant("toy", "0" * 64, "gfx950", "hip", "toy", "source", Config({}))


class CountingCompiler:
    """Answers at once with an object made from the source, or with the failure it is given, and counts."""

    identity = "counting 1"

    def __init__(self, failure: Failure | None = None) -> None:
        self.calls = 0
        self.failure = failure

    def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
        del deadline_s
        self.calls += 1
        if self.failure is not None:
            return self.failure
        data = hashlib.sha256(variant.source.encode()).digest() * 1000
        sha256 = hashlib.sha256(data).hexdigest()
        return CodeObject(data, sha256, variant.symbol, variant.arch, RESOURCES, self.identity, 0.5)


def entries(folder: Path) -> list[Path]:
    return [path for path in (folder / "objects").rglob("*") if path.is_file()]


def test_what_was_built_is_not_built_again(tmp_path: Path) -> None:
    inner = CountingCompiler()
    first = CachedCompiler(inner, tmp_path).compile(VARIANT, 1)
    again = CachedCompiler(inner, tmp_path).compile(VARIANT, 1)
    assert first == again
    assert inner.calls == 1


@pytest.mark.parametrize("field", ["source", "symbol", "arch", "language", "template"])
def test_whatever_is_compiled_counts(tmp_path: Path, field: str) -> None:
    inner = CountingCompiler()
    cached = CachedCompiler(inner, tmp_path)
    cached.compile(VARIANT, 1)
    cached.compile(replace(VARIANT, **{field: "another"}), 1)
    assert inner.calls == 2


def test_whatever_is_not_compiled_does_not_count(tmp_path: Path) -> None:
    inner = CountingCompiler()
    cached = CachedCompiler(inner, tmp_path)
    cached.compile(VARIANT, 1)
    cached.compile(replace(VARIANT, config=Config({"block_m": 1})), 1)
    assert inner.calls == 1


def test_another_compiler_has_its_own_objects(tmp_path: Path) -> None:
    CachedCompiler(CountingCompiler(), tmp_path).compile(VARIANT, 1)
    newer = CountingCompiler()
    newer.identity = "counting 2"
    CachedCompiler(newer, tmp_path).compile(VARIANT, 1)
    assert newer.calls == 1
    assert recorded_identities(tmp_path) == ["counting 1", "counting 2"]


@pytest.mark.parametrize(
    "line",
    [
        '#include "/home/a/sizes.hip"',
        "  #  include </opt/sizes.h>",
        '#include "../sizes.hip"',
        "#include SIZES",
        '#embed "/a/b"',
    ],
)
def test_a_source_that_includes_files_by_path_is_compiled_each_time(tmp_path: Path, line: str) -> None:
    inner = CountingCompiler()
    cached = CachedCompiler(inner, tmp_path)
    for _ in range(2):
        cached.compile(replace(VARIANT, source=f"int x;\n{line}\n"), 1)
    assert inner.calls == 2
    assert not entries(tmp_path)


@pytest.mark.parametrize(
    "line", ['#include "kittens.cuh"', "#include <hip/hip_runtime.h>", '// see "/home/a": #include']
)
def test_a_source_that_includes_the_compilers_own_headers_is_kept(tmp_path: Path, line: str) -> None:
    inner = CountingCompiler()
    cached = CachedCompiler(inner, tmp_path)
    for _ in range(2):
        cached.compile(replace(VARIANT, source=f"{line}\n"), 1)
    assert inner.calls == 1


def test_an_included_file_that_changed_is_read_again(tmp_path: Path) -> None:
    header = tmp_path / "sizes.h"
    source = f'#include "{header}"\nextern "C" __attribute__((global)) void toy(int *c) {{ *c = SIZE; }}\n'
    compiler = hip_compiler(Settings(cache_dir=tmp_path / "cache"))
    found = []
    for size in (1, 2):
        header.write_text(f"#define SIZE {size}\n")
        code = compiler.compile(replace(VARIANT, source=source), 60)
        assert isinstance(code, CodeObject), code
        found.append(code.sha256)
    assert found[0] != found[1]


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign"])
def test_a_damaged_entry_is_a_miss_and_is_replaced(tmp_path: Path, damage: str) -> None:
    inner = CountingCompiler()
    cached = CachedCompiler(inner, tmp_path)
    whole = cached.compile(VARIANT, 1)
    (entry,) = entries(tmp_path)
    data = entry.read_bytes()
    foreign = b"\x93\x01\x02\x03"
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    damaged = {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "flipped": bytes(flipped),
        "foreign": hashlib.sha256(foreign).digest() + foreign,
    }
    entry.write_bytes(damaged[damage])
    assert cached.compile(VARIANT, 1) == whole
    assert inner.calls == 2
    assert cached.compile(VARIANT, 1) == whole
    assert inner.calls == 2


@pytest.mark.parametrize("change", ["data", "symbol", "arch", "nothing", "both"])
def test_an_entry_that_fits_its_digest_and_not_its_variant_is_a_miss(tmp_path: Path, change: str) -> None:
    inner = CountingCompiler()
    cached = CachedCompiler(inner, tmp_path)
    whole = cached.compile(VARIANT, 1)
    assert isinstance(whole, CodeObject)
    (entry,) = entries(tmp_path)
    other = {
        "data": replace(whole, data=whole.data + b"x"),
        "symbol": replace(whole, symbol="other"),
        "arch": replace(whole, arch="gfx000"),
        "nothing": None,
        "both": whole,
    }[change]
    failure = Failure(Status.COMPILE_ERROR, "a.hip:1: error: no") if change == "both" else None
    payload = msgspec.msgpack.encode({"compiler": inner.identity, "code_object": other, "failure": failure})
    entry.write_bytes(hashlib.sha256(payload).digest() + payload)
    assert cached.compile(VARIANT, 1) == whole
    assert inner.calls == 2


def test_links_and_pipes_in_the_folder_are_neither_read_nor_written_through(tmp_path: Path) -> None:
    other, mine = tmp_path / "other", tmp_path / "mine"
    inner = CountingCompiler()
    whole = CachedCompiler(inner, other).compile(VARIANT, 1)
    before = {path: path.read_bytes() for path in entries(other)}
    (mine / "objects").mkdir(parents=True)
    (entry,) = before
    name = mine / entry.relative_to(other)

    def through(link: Path, target: Path) -> str | None:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
        compiler = CachedCompiler(CountingCompiler(), mine)
        assert compiler.compile(VARIANT, 1) == whole
        assert {path: path.read_bytes() for path in entries(other)} == before
        return compiler.trouble

    assert through(name, entry) is None
    assert not name.is_symlink(), "replaced by an entry of its own"
    shutil.rmtree(name.parent)
    assert "is a symbolic link, not a folder of its own" in str(through(name.parent, entry.parent))
    name.parent.unlink()
    (mine / "objects").rmdir()
    assert "is a symbolic link, not a folder of its own" in str(through(mine / "objects", other / "objects"))
    (mine / "objects").unlink()
    name.parent.mkdir(parents=True)
    os.mkfifo(name)
    assert CachedCompiler(inner, mine).compile(VARIANT, 1) == whole


@pytest.mark.parametrize(
    ("failure", "calls"),
    [
        (Failure(Status.COMPILE_ERROR, "toy.hip:3: error: no"), 1),
        (Failure(Status.COMPILE_ERROR, "toy.hip: the compiler ended with status -9: Killed"), 2),
        (Failure(Status.TIMEOUT, "toy.hip: still compiling after 1 s"), 2),
    ],
)
def test_only_a_failure_that_would_repeat_is_kept(tmp_path: Path, failure: Failure, calls: int) -> None:
    inner = CountingCompiler(failure)
    cached = CachedCompiler(inner, tmp_path)
    assert [cached.compile(VARIANT, 1), cached.compile(VARIANT, 1)] == [failure, failure]
    assert inner.calls == calls


def test_a_carried_cache_hits_where_there_is_no_compiler(tmp_path: Path) -> None:
    settings = Settings.from_environment(os.environ)
    zig = find_zig()
    assert zig is not None
    source = 'extern "C" __attribute__((global)) void toy(int* x) { *x = 1; }'
    variant = replace(VARIANT, source=source)
    here = CachedCompiler(HipCompiler(zig, find_hipkittens(settings)), tmp_path / "here")
    built = here.compile(variant, 300)
    assert isinstance(built, CodeObject), built
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    there = CachedCompiler(AbsentCompiler(here.identity, "nothing is installed"), tmp_path / "there")
    assert there.compile(variant, 300) == built
    with pytest.raises(ToolchainError, match="toy is not in the object cache, and nothing is installed"):
        there.compile(VARIANT, 300)


def test_with_no_compiler_the_default_is_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here(settings: Settings) -> None:
        raise ToolchainError(f"no compiler, {len(str(settings.cache_dir)) > 0}")

    monkeypatch.setattr(hktune.compile, "find_hip_toolchain", none_here)
    settings = Settings(tmp_path)
    with pytest.raises(ToolchainError, match="no compiler"):
        hip_compiler(settings)
    built = CachedCompiler(CountingCompiler(), tmp_path).compile(VARIANT, 1)
    assert hip_compiler(settings).identity == "counting 1"
    assert hip_compiler(settings).compile(VARIANT, 1) == built
    with pytest.raises(ToolchainError, match="no compiler"):
        hip_compiler(replace(settings, hipkittens_root=tmp_path / "mistyped"))
    another = CountingCompiler()
    another.identity = "counting 2"
    CachedCompiler(another, tmp_path).compile(VARIANT, 1)
    with pytest.raises(ToolchainError, match="no compiler"):
        hip_compiler(settings)


def test_a_folder_that_cannot_be_written_keeps_nothing_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("in the way")
    compiler = CachedCompiler(CountingCompiler(), tmp_path)
    assert compiler.trouble is None
    assert isinstance(compiler.compile(VARIANT, 1), CodeObject)
    assert re.fullmatch(r"the object cache .* cannot be written .*: set HKTUNE_CACHE", compiler.trouble or "")


@pytest.mark.parametrize(
    "detail",
    [
        "gemm.hip:3: error: 'kittens.cuh' file not found",
        "gemm.hip: error: unable to open output file 'kernel.o': 'No space left on device'",
        "gemm.hip: LLVM ERROR: out of memory; error: ",
    ],
)
def test_what_the_machine_lacked_is_neither_kept_nor_believed(tmp_path: Path, detail: str) -> None:
    """Also not when an older hktune has kept it."""
    inner = CountingCompiler(Failure(Status.COMPILE_ERROR, "toy.hip:3: error: no"))
    CachedCompiler(inner, tmp_path).compile(VARIANT, 1)
    [entry] = entries(tmp_path)
    kept = _Entry(inner.identity, None, Failure(Status.COMPILE_ERROR, detail))
    payload = msgspec.msgpack.encode(kept)
    entry.write_bytes(hashlib.sha256(payload).digest() + payload)
    assert isinstance(CachedCompiler(CountingCompiler(), tmp_path).compile(VARIANT, 1), CodeObject)


# Compiles the same hundred variants ten times, deleting an entry now and then so that writers keep meeting.
WRITER = """
import sys
import time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_compile_cache import CountingCompiler, VARIANT, entries
from hktune.compile import CachedCompiler
folder = Path(sys.argv[2])
cached = CachedCompiler(CountingCompiler(), folder)
for turn in range(10):
    for number in range(100):
        variant = replace(VARIANT, source=f"source {number}")
        assert cached.compile(variant, 1) == CountingCompiler().compile(variant, 1)
    finished = [path for path in entries(folder) if path.suffix == ".entry"]  # the rest is in the other writer's hands
    for entry in finished[turn::7]:
        entry.unlink(missing_ok=True)
"""


def test_two_processes_may_fill_one_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(tmp_path)]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [("", 0)] * 2
    cached = CachedCompiler(CountingCompiler(), tmp_path)
    for number in range(100):
        cached.compile(replace(VARIANT, source=f"source {number}"), 1)
    assert len(entries(tmp_path)) == 100
    assert all(entry.suffix == ".entry" for entry in entries(tmp_path))


def test_many_variants_come_back_each_with_its_outcome() -> None:
    variants = [replace(VARIANT, source=f"source {number}") for number in range(20)]
    inner = CountingCompiler()
    outcomes = dict(compile_many(inner, variants, 1, workers=3))
    assert outcomes == {variant: CountingCompiler().compile(variant, 1) for variant in variants}


def test_closing_the_iterator_drops_what_has_not_started() -> None:
    class Slow(CountingCompiler):
        def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
            time.sleep(0.02)
            return super().compile(variant, deadline_s)

    inner = Slow()
    variants = [replace(VARIANT, source=f"source {number}") for number in range(500)]
    results = compile_many(inner, variants, 1, workers=1)
    next(results)
    results.close()
    assert inner.calls < len(variants)


def test_an_error_of_the_toolchain_comes_through() -> None:
    with pytest.raises(ToolchainError):
        list(compile_many(AbsentCompiler("none", "nothing"), [VARIANT], 1))
