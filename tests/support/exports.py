"""What the tests of imports share: exports that are changed, and whose manifests agree with the change."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Lines = list[list[str]]


def change_rows(folder: Path, table: str, change: Callable[[Lines], object]) -> None:
    """Let `change` alter the rows of a CSV file, the names of its columns first among them."""
    path = folder / f"{table}.csv"
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    change(lines)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    sign(folder, path.name, rows=len(lines) - 1)


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` alter the manifest."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def sign(folder: Path, name: str, rows: int | None = None) -> None:
    """Have the manifest say what a file is like by now."""
    content = (folder / name).read_bytes()
    found = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def enter(document: dict[str, Any]) -> None:
        for file in document["files"]:
            if file["name"] == name:
                file.update(found if rows is None else {**found, "rows": rows})

    change_manifest(folder, enter)
