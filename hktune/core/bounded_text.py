"""Types of text that comes from files and goes to terminals, names and paths: bounded, and on one line."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from hktune.core.operation import OPERATION_TEXT_MAX

TEXT_MAX = 4096
# No control character, so no newline and no colour code, no other end of a line, no half of a surrogate pair.
PLAIN = r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+\Z"

Text = Annotated[str, Meta(max_length=TEXT_MAX, pattern=PLAIN)]
Word = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"\A[A-Za-z0-9_.+:/-]+\Z")]
FolderName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"\A[A-Za-z0-9_-]+\Z")]
"""A word that may be part of a path."""
OperationText = Annotated[str, Meta(min_length=1, max_length=OPERATION_TEXT_MAX, pattern=r"\A[a-z0-9_.*>+-]+\Z")]
"""What may be the text of an operation."""

ComputeUnits = Annotated[int, Meta(ge=1, le=65536)]
