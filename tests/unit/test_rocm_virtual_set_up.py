"""scripts/rocm-virtual's set-up, with programs that stand in for apt-get and dpkg: what is made, kept, and refused."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rocm_virtual import packages, set_up
from rocm_virtual.packages import SetUpError
from rocm_virtual.topology import GPUS, write_topology

ROOT = Path(__file__).resolve().parents[2]
APT_GET = """#!/bin/sh
folder=$(dirname "$APT_CONFIG")
echo "$2" >> "{log}"
case "$2" in
update) {update} ;;
install) {install}
    cd "$folder/cache/archives"
    : > libamdhip64-7_7.2.4-1~exp2_amd64.deb
    : > libc6_1%3a2.44-3_amd64.deb ;;
esac
"""
DPKG = '#!/bin/sh\nmkdir -p "$3/usr/lib/x86_64-linux-gnu"\n'
LISTED = ': > "$folder/state/lists/sid_Packages"'


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs, before all others; `log` there has what apt-get was asked for."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    (folder / "keyring").touch()
    monkeypatch.setattr(packages, "_KEYRING", folder / "keyring")
    put(folder, LISTED)
    return folder


def put(folder: Path, update: str, install: str = "") -> None:
    script = APT_GET.format(log=folder / "log", update=update, install=install)
    for name, text in (("apt-get", script), ("dpkg", DPKG)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def refused(cache: Path) -> str:
    with pytest.raises(SetUpError) as caught:
        set_up.set_up(cache, "runtime")
    assert "\n" not in str(caught.value)
    assert not list(cache.glob("runtime-*"))
    return str(caught.value)


def test_it_is_made_once_and_says_its_versions(tools: Path, tmp_path: Path) -> None:
    first = set_up.set_up(tmp_path / "cache", "runtime")
    assert first == set_up.set_up(tmp_path / "cache", "runtime")
    assert (tools / "log").read_text().split() == ["update", "install"]
    rocm = Path(first.environment["ROCM_PATH"])
    assert first.versions == f"Debian's libamdhip64-7 7.2.4-1~exp2 in {rocm}"
    assert (rocm / "versions.txt").read_text() == "libamdhip64-7 7.2.4-1~exp2\nlibc6 1:2.44-3\n"
    put(tools, "exit 100")
    with pytest.raises(SetUpError):
        set_up.set_up(tmp_path / "cache", "runtime", renew=True)
    assert first == set_up.set_up(tmp_path / "cache", "runtime"), "what is there stays until there is a newer one"
    put(tools, LISTED)
    set_up.set_up(tmp_path / "cache", "runtime", renew=True)
    assert (tools / "log").read_text().split() == ["update", "install", "update", "update", "install"]


def test_what_it_names_is_there(tools: Path, tmp_path: Path) -> None:
    environment = set_up.set_up(tmp_path / "cache", "runtime").environment
    assert Path(environment["HSA_MODEL_LIB"]).is_file()
    assert (Path(environment["ROCM_PATH"]) / "lib").is_dir()
    assert (Path(environment["HSA_MODEL_TOPOLOGY"]) / "nodes/1/properties").read_text()
    python = Path(environment["PATH"].split(os.pathsep)[0]) / "python"
    assert f"--argv0 {python}" in python.read_text()
    assert sys.executable in python.read_text()


@pytest.mark.parametrize(
    ("update", "install", "line"),
    [
        ("echo 'E: no route' >&2; exit 100", "", "apt-get update failed (no route): see that http://deb.debian.org"),
        ("echo 'W: Failed to fetch x' >&2", "", "apt-get update failed (Failed to fetch x): see that "),
        (LISTED, "echo 'E: Unable to locate package' >&2; exit 100;", "apt-get install failed (Unable to locate"),
    ],
    ids=["no network", "only a warning", "no package"],
)
def test_what_apt_cannot_do_is_its_own_line(tools: Path, tmp_path: Path, update: str, install: str, line: str) -> None:
    put(tools, update, install)
    assert refused(tmp_path / "cache").startswith(line)
    put(tools, LISTED)
    set_up.set_up(tmp_path / "cache", "runtime")


def test_what_is_lacking_is_named(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(packages, "_KEYRING", tmp_path / "none.gpg")
    assert "none.gpg, which the packages are checked with: apt install debian-archive-keyring" in refused(cache)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused(cache).startswith("no apt-get here")
    monkeypatch.setattr(packages.platform, "machine", lambda: "aarch64")
    assert "for x86_64, this machine is aarch64" in refused(cache)


def test_without_a_compiler_it_says_so(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_up.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetUpError, match="no ziglang here"):
        set_up.set_up(tmp_path / "cache", "runtime")


def test_two_at_once_make_it_once_and_one_that_was_killed_leaves_nothing(tools: Path, tmp_path: Path) -> None:
    put(tools, f"{LISTED}; sleep 1")
    cache = tmp_path / "cache"
    code = "import sys; from pathlib import Path; from rocm_virtual import packages, set_up; "
    code += "packages._KEYRING = Path('/dev/null'); packages._check_machine = lambda: None; "
    code += "set_up.set_up(Path(sys.argv[1]), 'runtime')"
    command = [sys.executable, "-c", code, str(cache)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    killed = subprocess.Popen(command, env=environment)
    while not list(cache.glob(".*")):
        assert killed.poll() is None
        threading.Event().wait(0.01)
    killed.kill()
    killed.wait()
    assert not list(cache.glob("runtime-*"))
    both = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [each.wait(timeout=60) for each in both] == [0, 0]
    assert (tools / "log").read_text().split().count("install") == 1
    assert sorted(path.name.split("-")[0] for path in cache.iterdir()) == [
        "lock", "model", "python", "runtime", "topology"
    ]  # fmt: skip


@pytest.mark.parametrize("name", GPUS)
def test_the_topology_is_names_and_numbers(tmp_path: Path, name: str) -> None:
    write_topology(tmp_path, GPUS[name])
    for path in tmp_path.rglob("properties"):
        assert all(len(line.split()) == 2 and line.split()[1].isdigit() for line in path.read_text().splitlines())
    gpu = dict(line.split() for line in (tmp_path / "nodes/1/properties").read_text().splitlines())
    assert int(gpu["gfx_target_version"]) == {"gfx950": 90500, "gfx942": 90402}[name]
    assert int(gpu["simd_count"]) // int(gpu["simd_per_cu"]) == 256
    for kind in ("mem_banks", "caches", "io_links"):
        folder = tmp_path / "nodes/1" / kind
        assert len(list(folder.iterdir())) == int(gpu[f"{kind}_count"])
