"""ROCm as Debian packages it, unpacked into a folder: nothing is installed, and apt's own state is not touched."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "runtime": ("libamdhip64-7",),
    "rocblas": ("libamdhip64-7", "librocblas5", "librocblas-dev"),
    "hipblaslt": ("libamdhip64-7", "libhipblaslt1", "libhipblaslt-dev", "libhipblas-common-dev"),
    "hipcc": ("libamdhip64-7", "hipcc", "libclang-common-22-dev", "dash"),
}
LIBRARIES = Path("usr/lib/x86_64-linux-gnu")
VERSIONS = "versions.txt"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MIRROR = "http://deb.debian.org/debian"
# A mirror that is behind by more than a week is good enough: what it has is signed all the same.
_APT = """\
APT::Architecture "amd64";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Dir "{folder}";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc "{folder}/etc";
Debug::NoLocking "true";
"""


class SetUpError(Exception):
    """What is lacking and what to do, in one line."""


def unpack(wanted: Sequence[str], folder: Path) -> None:
    """Fetch Debian's packages `wanted` and what they need, and unpack them into `folder`; their versions are in a file
    there. The suite moves, so they are the newest. Raises SetUpError."""
    _check_machine()
    apt = folder / "apt"
    _configure(apt)
    _apt_get(apt, ["update"])
    _apt_get(apt, ["install", "--yes", "--download-only", "--no-install-recommends", *wanted])
    archives = sorted((apt / "cache" / "archives").glob("*.deb"))
    for archive in archives:
        subprocess.run(["dpkg", "-x", archive, folder], check=True)
    versions = sorted(" ".join(archive.name.replace("%3a", ":").split("_")[:2]) for archive in archives)
    (folder / VERSIONS).write_text("\n".join(versions) + "\n", encoding="utf-8")
    shutil.rmtree(apt)


def version_of(package: str, folder: Path) -> str:
    """The version of a package that `unpack` put into `folder`."""
    lines = (folder / VERSIONS).read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ") for line in lines)[package]


def _check_machine() -> None:
    if platform.machine() != "x86_64":
        raise SetUpError(f"ROCm's packages are for x86_64, this machine is {platform.machine()}: take another")
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise SetUpError(f"no {tool} here, which fetches and unpacks ROCm: take a machine with Debian or Ubuntu")
    if not _KEYRING.is_file():
        raise SetUpError(f"no {_KEYRING}, which the packages are checked with: apt install debian-archive-keyring")


def _configure(apt: Path) -> None:
    """An apt of its own at `apt`, which knows no installed package."""
    for name in ("etc", "state/lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    suites = ("sid", "experimental")
    sources = "".join(f"deb [signed-by={_KEYRING}] {_MIRROR} {suite} main\n" for suite in suites)
    (apt / "etc" / "sources.list").write_text(sources, encoding="utf-8")
    (apt / "etc" / "preferences").write_text("Package: *\nPin: release a=experimental\nPin-Priority: 900\n")
    (apt / "apt.conf").write_text(_APT.format(folder=apt), encoding="utf-8")


def _apt_get(apt: Path, words: Sequence[str]) -> None:
    command = ["apt-get", "-q", *words]
    done = subprocess.run(
        command, env={**os.environ, "APT_CONFIG": str(apt / "apt.conf"), "LC_ALL": "C"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
    # An update that fetches nothing is a warning only, and leaves no list.
    if done.returncode or (words[0] == "update" and not any((apt / "state" / "lists").glob("*Packages*"))):
        why = complaints[-1][2:].strip() if complaints else f"exit code {done.returncode}"
        raise SetUpError(f"apt-get {words[0]} failed ({why}): see that {_MIRROR} can be reached, and run this again")
