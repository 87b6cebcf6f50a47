from __future__ import annotations

from pathlib import Path

import pytest

from hktune.compile.diagnostics import first_error, machine_fault, names_an_error

HEADERS = Path("/home/me/HipKittens/include")

IN_THE_SOURCE = """\
gemm.hip:4:1: warning: unused variable 'x'
gemm.hip:9:13: error: use of undeclared identifier 'y'
    9 | int x = y;
gemm.hip:11:1: error: expected ';'
2 errors generated when compiling for gfx950.
"""
IN_A_HEADER = """\
In file included from gemm.hip:2:
In file included from /home/me/HipKittens/include/kittens.cuh:9:
/home/me/HipKittens/include/types/rt.cuh:66:19: error: static assertion failed: Rows must be divisible
   66 |     static_assert(rows % 16 == 0, "Rows must be divisible");
/home/me/HipKittens/include/types/rt.cuh:90:5: note: in instantiation of template class 'rt<17>' requested here
gemm.hip:41:20: note: in instantiation of template class 'rt<17>' requested here
/home/me/HipKittens/include/types/rt.cuh:67:19: error: static assertion failed: another
gemm.hip:99:20: note: in instantiation of something else
"""
MISSING_INCLUDE = "gemm.hip:1:10: fatal error: 'nope.h' file not found\n    1 | #include <nope.h>\n"
FROM_THE_LINKER = "ld.lld: error: undefined hidden symbol: g\n>>> referenced by kernel.o:(k)\n"
FROM_THE_DRIVER = "zig: error: unsupported HIP gpu architecture: gfx999\n"
FROM_THE_BACK_END = "error: <unknown>:0:0: ran out of registers in function 'k'\n"


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        (IN_THE_SOURCE, "gemm.hip:9: error: use of undeclared identifier 'y'"),
        (IN_A_HEADER, "types/rt.cuh:66: error: static assertion failed: Rows must be divisible (from gemm.hip:41)"),
        (MISSING_INCLUDE, "gemm.hip:1: error: 'nope.h' file not found"),
        (FROM_THE_LINKER, "gemm.hip: ld.lld: error: undefined hidden symbol: g"),
        (FROM_THE_DRIVER, "gemm.hip: zig: error: unsupported HIP gpu architecture: gfx999"),
        (FROM_THE_BACK_END, "gemm.hip: error: <unknown>:0:0: ran out of registers in function 'k'"),
    ],
)
def test_the_first_error_is_one_line_without_folders(stderr: str, expected: str) -> None:
    detail = first_error(stderr, "gemm.hip", HEADERS, 1)
    assert detail == expected
    assert names_an_error(detail) == (stderr != MISSING_INCLUDE)


@pytest.mark.parametrize(("stderr", "said"), [("", "and it said nothing"), ("\nKilled\nmore", "Killed")])
def test_a_compiler_that_died_is_no_verdict_on_the_source(stderr: str, said: str) -> None:
    detail = first_error(stderr, "gemm.hip", HEADERS, -9)
    assert detail == f"gemm.hip: the compiler ended with status -9: {said}"
    assert not names_an_error(detail)


def test_a_long_message_is_cut() -> None:
    assert len(first_error("gemm.hip:1:1: error: " + "x" * 5000, "gemm.hip", HEADERS, 1)) == 400


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        (MISSING_INCLUDE, "'nope.h' file not found: run `hktune doctor`"),
        ("In file included from g.hip:1:\n/h/k.cuh:9:10: fatal error: 'types/rt.cuh' file not found\n", "types/rt.cuh"),
        ("error: unable to open output file 'k.o': 'No space left on device'\n1 error generated.\n", "free the disk"),
        ("LLVM ERROR: out of memory\nAllocation failed\n", "free memory"),
        ("ld.lld: error: cannot open output file kernel.hsaco: Read-only file system\n", "repair the disk"),
        ("zig: error while loading shared libraries: libz.so.1: cannot open\n", "run `hktune doctor`"),
        (
            "Traceback (most recent call last):\n  File x\npkg.DynamicLibNotFoundError: Failure finding libnvrtc\n",
            "pkg.Dyn",
        ),
    ],
)
def test_what_the_machine_lacks_is_told_from_a_bad_source(stderr: str, expected: str) -> None:
    assert expected in (machine_fault(stderr) or "")


@pytest.mark.parametrize(
    "stderr",
    [
        IN_THE_SOURCE,
        IN_A_HEADER,
        FROM_THE_LINKER,
        FROM_THE_DRIVER,
        FROM_THE_BACK_END,
        "gemm.hip:9:13: error: static assertion failed: LDS out of memory\n",
        "gemm.hip:9:13: error: no\nLLVM ERROR: out of memory\n",
        "",
    ],
)
def test_a_bad_source_is_not_blamed_on_the_machine(stderr: str) -> None:
    assert machine_fault(stderr) is None
