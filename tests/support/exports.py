"""Exports that tests change, with manifests that agree with the change."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Lines = list[list[str]]


def change_rows(folder: Path, table: str, change: Callable[[Lines], object]) -> None:
    """Let `change` alter the rows of a CSV file, of which the first is the header."""
    path = folder / f"{table}.csv"
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    change(lines)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    update_digest(folder, path.name, rows=len(lines) - 1)


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` alter the manifest."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def update_digest(folder: Path, name: str, rows: int | None = None) -> None:
    """Update a file's size and digest in the manifest, and its number of rows if that is given."""
    content = (folder / name).read_bytes()
    values = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if rows is not None:
        values["rows"] = rows

    def update(document: dict[str, Any]) -> None:
        for file in document["files"]:
            if file["name"] == name:
                file.update(values)

    change_manifest(folder, update)
