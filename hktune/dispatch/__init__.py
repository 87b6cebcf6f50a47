"""Production's side of a dispatch table: read, judged, looked up. May import core, device and objects.

What makes and examines tables is in `hktune.tables`.
"""

from hktune.dispatch.choice import Choice, Choices
from hktune.dispatch.files import (
    Trust,
    check_table_place,
    content_sha256,
    read_table,
    saved_names,
    table_json,
    write_table,
)
from hktune.dispatch.judge import Found, Mismatch, Reason, judge
from hktune.dispatch.sign import key_sha256, sign_table
from hktune.dispatch.table import Entry, Table
from hktune.dispatch.validate import Skipped, Validated, validate

__all__ = [
    "Choice",
    "Choices",
    "Entry",
    "Found",
    "Mismatch",
    "Reason",
    "Skipped",
    "Table",
    "Trust",
    "Validated",
    "check_table_place",
    "content_sha256",
    "judge",
    "key_sha256",
    "read_table",
    "saved_names",
    "sign_table",
    "table_json",
    "validate",
    "write_table",
]
