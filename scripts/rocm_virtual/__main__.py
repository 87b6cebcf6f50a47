"""scripts/rocm-virtual: sets up AMD's HIP runtime over a virtual GPU, once, and runs a command there."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from hktune.core.settings import Settings  # noqa: E402
from rocm_virtual.packages import PACKAGES, SetUpError  # noqa: E402, as it is found by the line above
from rocm_virtual.set_up import Virtual, set_up  # noqa: E402

TESTS = ("python", "-m", "pytest", "-m", "rocm_virtual")


def main() -> None:
    options = _parser().parse_args()
    cache = options.cache or Settings.from_environment(os.environ).cache_dir / "rocm-virtual"
    try:
        virtual = set_up(cache, options.packages, renew=options.renew)
    except SetUpError as error:
        sys.exit(f"rocm-virtual: {error}")
    _run(virtual, options.command or list(TESTS))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/rocm-virtual",
        description="Runs a command on AMD's HIP runtime over a GPU that is hktune's emulator; by default the tests "
        "for that. `python` is hktune's own. The runtime is Debian's, fetched once into a folder.",
    )
    parser.add_argument(
        "--packages",
        choices=tuple(PACKAGES),
        default="runtime",
        help="what is fetched of ROCm (default: %(default)s). Debian's rocBLAS is for gfx942, and so is its GPU. "
        "hipBLASLt's kernels are those for gfx90a, translated",
    )
    parser.add_argument("--renew", action="store_true", help="fetch the newest packages, in place of those there")
    parser.add_argument("--cache", type=Path, help="where all that is kept (default: rocm-virtual in hktune's cache)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command and its arguments")
    return parser


def _run(virtual: Virtual, command: list[str]) -> None:
    """Become `command`."""
    print(f"rocm-virtual: {virtual.versions}", flush=True)
    environment = {**os.environ, **virtual.environment}
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        sys.exit(f"rocm-virtual: {command[0]} does not start ({error.strerror}): give a command and its arguments")


if __name__ == "__main__":
    main()
