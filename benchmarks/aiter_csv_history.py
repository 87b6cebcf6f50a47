"""Every version of every CSV file in the history of an AITER checkout, read as shapes: what is taken, and what is not.

python benchmarks/aiter_csv_history.py AITER_CHECKOUT
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hktune.core.errors import HktuneError
from hktune.exchange import read_foreign

_REASONS_SHOWN = 12


def main() -> None:
    """Print how many files are known, how many lines are shapes and have times, and why others are none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    checkout = parser.parse_args().checkout
    files, lines, reasons = Counter[str](), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.csv"
        for data in versions(checkout):
            path.write_bytes(data)
            try:
                found = read_foreign(path)
            except HktuneError as error:
                files[f"refused: {str(error).replace(folder, '')}"] += 1
                continue
            files[found.format if found else "of no known format"] += 1
            for product in found.products if found else ():
                lines["taken"] += product.problem is not None
                lines["with a time"] += product.problem is not None and product.time_us is not None
                reasons[product.why_not] += product.problem is None
    for counter in (files, lines):
        print("; ".join(f"{count:,} {name}" for name, count in counter.most_common()))
    for reason, count in reasons.most_common(_REASONS_SHOWN):
        if count:
            print(f"  {count:>9,} {reason}")


def versions(checkout: Path) -> Iterator[bytes]:
    """The bytes of each version, once. A checkout without all of its objects lacks some."""
    log = [
        "git",
        "-C",
        str(checkout),
        "log",
        "--all",
        "--raw",
        "--no-abbrev",
        "--no-renames",
        "--format=",
        "--",
        "*.csv",
    ]
    raw = subprocess.run(log, capture_output=True, text=True, check=True).stdout
    blobs = dict.fromkeys(line.split()[3] for line in raw.splitlines() if line.startswith(":"))
    asked = "".join(f"{blob}\n" for blob in blobs if set(blob) != {"0"})
    batch = ["git", "-C", str(checkout), "cat-file", "--batch"]
    out = subprocess.run(batch, input=asked.encode(), capture_output=True, check=True).stdout
    at = 0
    while at < len(out):
        end = out.index(b"\n", at)
        words = out[at:end].split()
        at = end + 1
        if words[-1] != b"missing":
            size = int(words[2])
            yield out[at : at + size]
            at += size + 1


if __name__ == "__main__":
    main()
