"""The dispatch table: built from trials, published, read back, judged for a device, and looked up."""

from hktune.dispatch.build import BuildOptions, build_table
from hktune.dispatch.choice import Choice, Choices
from hktune.dispatch.describe import describe
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
from hktune.dispatch.neighbours import Regret, cross_trials, regrets
from hktune.dispatch.sign import sign_table
from hktune.dispatch.table import Entry, Table
from hktune.dispatch.validate import Skipped, Validated, validate

__all__ = [
    "BuildOptions",
    "Choice",
    "Choices",
    "Entry",
    "Found",
    "Mismatch",
    "Reason",
    "Regret",
    "Skipped",
    "Table",
    "Trust",
    "Validated",
    "build_table",
    "check_table_place",
    "content_sha256",
    "cross_trials",
    "describe",
    "judge",
    "read_table",
    "regrets",
    "saved_names",
    "sign_table",
    "table_json",
    "validate",
    "write_table",
]
