"""The parts of the virtual GPU, each made once and kept: ROCm's packages, the topology, the model library, a Python.

Each is a folder of the cache that appears by a rename when it is whole. One process makes parts at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hktune.core.publish import scratch_folder, sweep
from rocm_virtual.packages import LIBRARIES, PACKAGES, SetUpError, unpack, version_of
from rocm_virtual.topology import GPUS, Gpu, write_topology
from rocm_virtual.translated import translate

_HERE = Path(__file__).parent
_ARCH = {"rocblas": "gfx942"}  # Debian's has no kernels for gfx950; hipBLASLt's are translated
_LOADER = "ld-linux-x86-64.so.2"
_C_FLAGS = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")
# No copy engines and no interrupts: the model has none. Pinned copies end in a part of the model that is not written.
# An allocation of its own for each buffer, so that an access past it is seen.
_TOOL = """\
#!/bin/sh
unset ROCM_PATH
export HIP_DEVICE_LIB_PATH=/usr/lib/llvm-22/lib/clang/22/amdgcn/bitcode
exec unshare --map-root-user --mount sh -c 'mount --rbind "$0" /usr && exec {target} "$@"' {usr} "$@"
"""
_RUNTIME = {
    "HSA_ENABLE_SDMA": "0",
    "HSA_ENABLE_INTERRUPT": "0",
    "HSA_DISABLE_FRAGMENT_ALLOCATOR": "1",
    "GPU_PINNED_MIN_XFER_SIZE": "1000000000",
    "GPU_PINNED_XFER_SIZE": "0",
}


@dataclass(frozen=True)
class Virtual:
    """What a command needs to run on the virtual GPU."""

    versions: str
    environment: Mapping[str, str]


def set_up(cache: Path, packages: str, *, renew: bool = False) -> Virtual:
    """All parts, made if they are not there, for a set of PACKAGES. Raises SetUpError in one line."""
    try:
        with _alone(cache):
            sweep(cache)
            rocm = cache / f"{packages}-{_fingerprint(*PACKAGES[packages], _TOOL)}"
            _make(rocm, lambda folder: _fetch(packages, folder, rocm), renew)
            topology = _topology(cache, GPUS[_ARCH.get(packages, "gfx950")])
            model, python = _model(cache), _python(cache, rocm)
            kernels = _kernels(cache, rocm) if packages == "hipblaslt" else {}
    except OSError as error:
        raise SetUpError(f"{error.filename or cache}: {error.strerror}: make room there, or give --cache") from error
    path = os.environ.get("PYTHONPATH")
    environment = {
        **_RUNTIME,
        **kernels,
        "HKTUNE_ROCM_VIRTUAL": packages,
        "HSA_MODEL_TOPOLOGY": str(topology),
        "HSA_MODEL_LIB": str(model / "libmodel.so"),
        "ROCM_PATH": str(rocm),
        "PYTHONPATH": os.pathsep.join([str(_HERE.parent), *([path] if path else [])]),
        "PATH": os.pathsep.join([str(python / "bin"), os.environ.get("PATH", os.defpath)]),
    }
    named = ", ".join(f"{name} {version_of(name, rocm)}" for name in PACKAGES[packages])
    return Virtual(f"Debian's {named} in {rocm}", environment)


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another set-up of this cache")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    print(f"rocm-virtual: {line}", flush=True)


def _make(folder: Path, fill: Callable[[Path], None], renew: bool = False) -> Path:
    """`folder`, which `fill` makes elsewhere where it is not there yet, or to `renew` it."""
    if renew or not folder.exists():
        with scratch_folder(folder.parent) as made:
            fill(made / "new")
            if folder.exists():
                folder.rename(made / "old")
            (made / "new").rename(folder)
    return folder


def _fetch(packages: str, folder: Path, final: Path) -> None:
    """Unpack the packages into `folder`, which will be `final`."""
    _say(f"fetching {', '.join(PACKAGES[packages])} and what they need from Debian, once")
    folder.mkdir()
    unpack(PACKAGES[packages], folder)
    for name, place in (("lib", LIBRARIES), ("include", "usr/include")):  # where ROCm has them
        (folder / name).symlink_to(place)
    for name in ("hipcc", "ld.lld"):
        if (folder / "usr" / "lib" / "llvm-22" / "bin" / "ld.lld").is_file():
            _write_tool(folder / "bin" / name, final / "usr")


def _write_tool(script: Path, usr: Path) -> None:
    """A program of Debian's that sees these packages, and no others, as its /usr: it needs their C library."""
    script.parent.mkdir(exist_ok=True)
    target = {"ld.lld": "/usr/lib/llvm-22/bin/ld.lld"}.get(script.name, f"/usr/bin/{script.name}")
    script.write_text(_TOOL.format(usr=shlex.quote(str(usr)), target=target), encoding="utf-8")
    script.chmod(0o755)


def _topology(cache: Path, gpu: Gpu) -> Path:
    name = _fingerprint(repr(gpu), (_HERE / "topology.py").read_text(encoding="utf-8"))
    return _make(cache / f"topology-{name}", lambda folder: write_topology(folder, gpu))


def _model(cache: Path) -> Path:
    name = _fingerprint((_HERE / "model.c").read_text(encoding="utf-8"), *_C_FLAGS)
    return _make(cache / f"model-{name}", build_model)


def _kernels(cache: Path, rocm: Path) -> Mapping[str, str]:
    """What tells hipBLASLt where kernels for gfx950 are."""
    text = (_HERE / "translated.py").read_text(encoding="utf-8")
    name = _fingerprint(text, version_of("libhipblaslt1", rocm))
    folder = cache / f"kernels-{name}"
    if not folder.exists():
        _say("translating hipBLASLt's kernels, once")
    try:
        _make(folder, lambda made: translate(rocm / LIBRARIES / "hipblaslt" / "library", made))
    except ValueError as unknown:
        raise SetUpError(f"{unknown}: translated.py knows hipBLASLt 1.2.2, change it for this one") from None
    return {"HIPBLASLT_TENSILE_LIBPATH": str(folder)}


def build_model(folder: Path) -> None:
    """Compile the model library as `folder`/libmodel.so."""
    if importlib.util.find_spec("ziglang") is None:
        raise SetUpError("no ziglang here, which compiles the model library: pip install 'hktune[gfx950]'")
    folder.mkdir(parents=True)
    compiler = [sys.executable, "-m", "ziglang", "cc"]
    done = subprocess.run(
        [*compiler, *_C_FLAGS, "-o", folder / "libmodel.so", _HERE / "model.c"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        why = next((line for line in done.stderr.splitlines() if "error" in line), f"exit code {done.returncode}")
        raise SetUpError(f"ziglang's clang does not compile model.c ({why}): run this again, or repair it")


def _python(cache: Path, rocm: Path) -> Path:
    """An environment like this Python's, whose `python` runs on ROCm's own C library: Debian 12's is too old for it."""
    if sys.prefix == sys.base_prefix:
        raise SetUpError("this Python is in no virtual environment: run it as scripts/rocm-virtual, which makes one")
    libraries = rocm / LIBRARIES
    places = [libraries, sysconfig.get_config_var("LIBDIR")]
    paths = os.pathsep.join(map(str, places))

    def fill(folder: Path) -> None:
        (folder / "bin").mkdir(parents=True)
        script = folder / "bin" / "python"
        start = [libraries / _LOADER, "--library-path", paths, "--argv0", final / "bin" / "python", sys.executable]
        script.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, start))} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
        shutil.copy(Path(sys.prefix) / "pyvenv.cfg", folder)
        (folder / "lib").symlink_to(Path(sys.prefix) / "lib")

    final = cache / f"python-{_fingerprint(sys.prefix, sys.executable, paths)}"
    return _make(final, fill)


def _fingerprint(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
