"""The dispatch table: built from trials, published, read back, validated against a device."""

from hktune.dispatch.build import build_table
from hktune.dispatch.describe import describe
from hktune.dispatch.files import read_table, table_json, write_table
from hktune.dispatch.table import Entry, Table
from hktune.dispatch.validate import Reason, Skipped, Validated, validate

__all__ = [
    "Entry",
    "Reason",
    "Skipped",
    "Table",
    "Validated",
    "build_table",
    "describe",
    "read_table",
    "table_json",
    "validate",
    "write_table",
]
