"""Signatures, checked both ways against OpenSSL; and files that are not what or where they should be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from naive_gemm import EMULATED, SHA256, published, trial

from hktune.cli import main
from hktune.dispatch import Trust, read_table, sign_table, validate
from hktune.errors import TableError, ToolchainError
from hktune.model import Problem

SMALL = Problem(8, 128, 64)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pair of ed25519 keys, another pair, and an RSA key."""
    pytest.importorskip("cryptography", reason="pip install 'hktune[sign]'")
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "other"):
        key = ed25519.Ed25519PrivateKey.generate()
        private = (form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        (folder / f"{name}.pem").write_bytes(key.private_bytes(*private))
        public = (form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(*public))
    wrong = x25519.X25519PrivateKey.generate().public_key()
    (folder / "x25519.pub").write_bytes(wrong.public_bytes(*public))
    return folder


def test_a_signed_table_is_read_with_its_key_and_with_no_other(tmp_path: Path, keys: Path) -> None:
    table = published(tmp_path, trial(SMALL))
    with pytest.raises(TableError, match=r"table\.json\.sig: cannot be read"):
        read_table(tmp_path, Trust(keys / "ours.pub"))
    sign_table(tmp_path, keys / "ours.pem")
    assert read_table(tmp_path, Trust(keys / "ours.pub")) == table
    assert read_table(tmp_path, Trust((keys / "ours.pub").read_bytes())) == table
    assert read_table(tmp_path) == table
    with pytest.raises(TableError, match=r"is not a signature of this file by .*other\.pub"):
        read_table(tmp_path, Trust(keys / "other.pub"))
    for wrong in ("x25519.pub", "ours.pem"):
        with pytest.raises(TableError, match="is no unencrypted ed25519 public key in PEM"):
            read_table(tmp_path, Trust(keys / wrong))
    with pytest.raises(TableError, match="is no unencrypted ed25519 private key in PEM"):
        sign_table(tmp_path, keys / "ours.pub")
    with pytest.raises(TableError, match=r"nowhere\.pub: cannot be read"):
        read_table(tmp_path, Trust(keys / "nowhere.pub"))


def test_one_changed_byte_breaks_the_signature_even_where_json_does_not_mind(tmp_path: Path, keys: Path) -> None:
    table = published(tmp_path, trial(SMALL))
    sign_table(tmp_path, keys / "ours.pem")
    path = tmp_path / "table.json"
    path.write_bytes(path.read_bytes() + b"\n")
    assert read_table(tmp_path) == table
    with pytest.raises(TableError, match="is not a signature of this file"):
        read_table(tmp_path, Trust(keys / "ours.pub"))
    published(tmp_path, trial(SMALL, 2.0))
    assert not (tmp_path / "table.json.sig").exists(), "a new table does not keep the old one's signature"


def test_openssl_agrees_both_ways(tmp_path: Path, keys: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    published(tmp_path, trial(SMALL))
    files = ["-rawin", "-in", tmp_path / "table.json"]
    signature = tmp_path / "table.json.sig"
    sign_table(tmp_path, keys / "ours.pem")
    verify = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", keys / "ours.pub", *files, "-sigfile", signature]
    assert subprocess.run(verify, check=False, capture_output=True).returncode == 0
    signature.unlink()
    sign = [openssl, "pkeyutl", "-sign", "-inkey", keys / "ours.pem", *files, "-out", signature]
    subprocess.run(sign, check=True, capture_output=True)
    read_table(tmp_path, Trust(keys / "ours.pub"))


def test_the_commands(tmp_path: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(tmp_path, trial(SMALL))
    assert main(["table", "sign", str(tmp_path), "--key", str(keys / "ours.pem")]) == 0
    assert main(["table", "verify", str(tmp_path), "--key", str(keys / "ours.pub")]) == 0
    assert "1 shapes, 1 code objects, 0 not as signed" in capsys.readouterr().out
    assert main(["table", "verify", str(tmp_path), "--key", str(keys / "other.pub")]) == 2
    (tmp_path / "objects" / f"{SHA256}.hsaco").write_bytes(b"other")
    assert main(["table", "verify", str(tmp_path), "--key", str(keys / "ours.pub")]) == 1
    assert "object changed" in capsys.readouterr().out


def test_without_the_library_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(tmp_path, trial(SMALL))
    (tmp_path / "table.json.sig").write_bytes(bytes(64))
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(ToolchainError, match=r"pip install 'hktune\[sign\]'"):
        read_table(tmp_path, Trust(b"any key"))
    assert read_table(tmp_path).entries, "a signature that nobody asks for needs no library"


REBUILD = "build it again with `hktune table build`"


def test_links_pipes_and_folders_are_not_read(tmp_path: Path) -> None:
    directory, elsewhere = tmp_path / "table", tmp_path / "elsewhere"
    table = published(directory, trial(SMALL))
    shutil.copytree(directory, elsewhere)
    name = directory / "objects" / f"{SHA256}.hsaco"

    def skipped() -> tuple[str, str]:
        (one,) = validate(table, directory, EMULATED, allow_modelled=True).skipped
        return str(one.reason), one.detail

    name.unlink()
    name.symlink_to(elsewhere / "objects" / name.name)
    assert "symbolic link" in skipped()[1]
    name.unlink()
    os.mkfifo(name)
    assert skipped() == (
        "object unreadable",
        f"{name}: is a pipe, not a code object: {REBUILD}",
    )
    name.unlink()
    (directory / "objects").rmdir()
    (directory / "objects").symlink_to(elsewhere / "objects")
    assert skipped()[0] == "object unreadable"
    assert "symbolic link" in skipped()[1]
    (directory / "table.json").unlink()
    os.mkfifo(directory / "table.json")
    with pytest.raises(TableError, match="is a pipe, not a table"):
        read_table(directory)
    (directory / "table.json").unlink()
    (directory / "table.json").symlink_to("/dev/zero")
    with pytest.raises(TableError, match="symbolic link"):
        read_table(directory)
    (tmp_path / "link").symlink_to(elsewhere)
    assert read_table(tmp_path / "link") == table, "the directory itself is the caller's to choose"
