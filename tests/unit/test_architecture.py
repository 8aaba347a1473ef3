"""Checks that linters do not do: SQL that nothing uses, and files that outgrew their subject."""

import re
from pathlib import Path

import pytest

from virtualchain.store.sql import migrations_root, queries, sql_root

ROOT = Path(__file__).parents[2]
PROGRAM = sorted((*(ROOT / "virtualchain").rglob("*.py"), *migrations_root().rglob("*.py")))


@pytest.mark.parametrize("file", sorted((sql_root() / "queries").glob("*.sql")), ids=lambda file: file.stem)
def test_every_named_query_is_used(file: Path) -> None:
    """Every named query in a SQL file is used by the program."""
    modules = [path.read_text(encoding="utf-8") for path in PROGRAM]
    readers = [module for module in modules if f'queries("{file.stem}")' in module]
    assert readers
    if not any("_Q.items()" in reader for reader in readers):  # otherwise it uses each of them
        literals = set(re.findall(r'"(\w+)"', "\n".join(modules)))
        assert set(queries(file.stem)) - literals == set()


def test_files_stay_small() -> None:
    """No file is longer than 600 lines: past that, it holds a second subject."""
    files = [*PROGRAM, *(ROOT / "tests").rglob("*.py"), *sql_root().rglob("*.sql")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_bytes().splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 600} == {}
