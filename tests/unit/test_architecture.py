"""What linters do not see: SQL that nothing asks for, and rooms that grew past one job."""

import re
from pathlib import Path

import pytest

from virtualchain.store.sql import migrations_root, queries, sql_root

ROOT = Path(__file__).parents[2]
PROGRAM = sorted((*(ROOT / "virtualchain").rglob("*.py"), *migrations_root().rglob("*.py")))


@pytest.mark.parametrize("file", sorted((sql_root() / "queries").glob("*.sql")), ids=lambda file: file.stem)
def test_every_named_query_is_asked_for(file: Path) -> None:
    """A query without a reader is dead code, which no linter finds in SQL files."""
    modules = [path.read_text(encoding="utf-8") for path in PROGRAM]
    readers = [module for module in modules if f'queries("{file.stem}")' in module]
    assert readers
    if not any("_Q.items()" in reader for reader in readers):  # else it asks for each of them
        literals = set(re.findall(r'"(\w+)"', "\n".join(modules)))
        assert set(queries(file.stem)) - literals == set()


def test_files_stay_small() -> None:
    """A file past 600 lines has a second subject inside that needs a file of its own."""
    files = [*PROGRAM, *(ROOT / "tests").rglob("*.py"), *sql_root().rglob("*.sql")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_bytes().splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 600} == {}
