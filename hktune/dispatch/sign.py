"""Signatures of tables: ed25519 over the bytes of table.json, which names every code object by its sha256.

`table.json.sig` is the bare signature of 64 bytes, keys are PEM files, so OpenSSL makes and checks them as well:

    openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out key.pub
    openssl pkeyutl -verify -pubin -inkey key.pub -rawin -in table.json -sigfile table.json.sig
"""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hktune.core.errors import TableError, ToolchainError
from hktune.core.outside_file import FileKind
from hktune.core.publish import publish
from hktune.dispatch.layout import SIGNATURE_NAME, TABLE_FILE, TABLE_NAME

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_FILE = FileKind("a key", 64 << 10, TableError, "make one with `openssl genpkey`")

PublicKey = str | PathLike[str] | bytes
"""The path of a PEM file, or its bytes."""


def sign_table(directory: Path, private_key: Path) -> Path:
    """Sign `directory`/table.json with the ed25519 key in the PEM file `private_key`; returns the signature's path.

    Raises TableError when a file cannot be read or written or holds no such key, ToolchainError without `cryptography`.
    """
    key: Ed25519PrivateKey = _key(KEY_FILE.read(private_key), private=True, where=str(private_key))
    path = directory / SIGNATURE_NAME
    signature = key.sign(TABLE_FILE.read_inside(directory, TABLE_NAME))
    try:
        publish(path, signature)
    except OSError as error:
        raise TableError(f"{path}: cannot be written ({error.strerror}): sign a copy of the table") from None
    return path


def key_sha256(public_key: PublicKey) -> str:
    """What names a key: the sha256 of it as DER, which `openssl pkey -pubin -outform DER | sha256sum` gives too. Raises
    TableError, or ToolchainError without `cryptography`."""
    key, _ = _public(public_key)
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def check_signature(path: Path, data: bytes, signature: bytes, public_key: PublicKey) -> None:
    """Raises TableError unless `signature` is one of `data`, the bytes of the file at `path`, by `public_key`."""
    key, where = _public(public_key)
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data)
    except InvalidSignature:
        raise TableError(
            f"{path}: {SIGNATURE_NAME} is not a signature of this file by {where}: get table, signature and key anew"
        ) from None


def _public(public_key: PublicKey) -> tuple[Ed25519PublicKey, str]:
    """The key, and what it is called. Raises TableError."""
    if isinstance(public_key, bytes):
        return _key(public_key, private=False, where="public_key"), "public_key"
    where = str(public_key)
    return _key(KEY_FILE.read(Path(public_key)), private=False, where=where), where


def _key(pem: bytes, private: bool, where: str) -> Any:
    try:
        from cryptography.exceptions import InternalError, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as absent:
        raise ToolchainError("signatures need a library: pip install 'hktune[sign]'") from absent
    wanted = ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey
    kind = "private" if private else "public"
    try:
        key = serialization.load_pem_private_key(pem, None) if private else serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):  # the last for keys of another length
        key = None
    if not isinstance(key, wanted):
        raise TableError(f"{where}: is no unencrypted ed25519 {kind} key in PEM: make one with `openssl genpkey`")
    return key
