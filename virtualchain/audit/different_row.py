"""The first row in which two deployments differ: among what a block changed, or else among all rows."""

import json
from collections.abc import Iterator, Mapping, Sequence

from psycopg import sql

from virtualchain.audit.sides import SIDES, Side
from virtualchain.model import Json


class DifferentRow:
    """Looks for a row of one app that is not the same on both sides."""

    def __init__(self, sides: Sequence[Side], apps: Sequence[Json]) -> None:
        self._sides = sides
        self._apps = apps

    def find(
        self, block_id: int, tables: Mapping[str, Json], readable: Sequence[str]
    ) -> tuple[Json | None, str | None]:
        """Return the first row that differs after a block, and a note on what it was looked for in."""
        oldest = max(row["history_from"] for row in self._apps)
        shown = max(block_id, oldest)
        if shown > min(row["block_id"] for row in self._apps):
            return None, f"history reaches back to block {oldest} only, which not both have taken"
        try:
            for side in self._sides:
                side.show(shown)
            if oldest < block_id:
                for name, key in self._changed_differently(block_id):
                    rows = self._row_of(name, tables[name]["columns"], key) if name in readable else None
                    if rows is not None:
                        return {"table": name, "key": key, **rows}, None
            note = f"history reaches back to block {shown} only: the row is as of that block"
            for name in readable:
                rows = self._any_row_of(name, tables[name]["columns"])
                if rows is not None:
                    return {"table": name, "key": None, **rows}, note if shown > block_id else None
        finally:
            for side in self._sides:
                side.show(None)
        return (
            None,
            f"no row differs as of block {shown}: a state hash is damaged, or rows were changed since",
        )

    def _changed_differently(self, block_id: int) -> Iterator[tuple[str, Json]]:
        """Yield tables and keys of the rows to which a block did something else on one side."""
        changes = [
            {
                (row["table"], json.dumps(row["key"], sort_keys=True, default=str)): row
                for row in side.rows("changes", app=self._apps[0]["name"], block_id=block_id)
            }
            for side in self._sides
        ]
        for place in sorted(changes[0].keys() | changes[1].keys()):
            rows = [known.get(place) for known in changes]
            if rows[0] != rows[1]:
                yield place[0], next(row["key"] for row in rows if row is not None)

    def _row_of(self, name: str, columns: Sequence[str], key: Json) -> Json | None:
        """Return a row on both sides, if it is not the same; null on a side without it."""
        contents = []
        for side, parts in self._views(name, columns):
            conditions = (
                sql.SQL("{} = {}").format(sql.Identifier(column), sql.Literal(_literal(value)))
                for column, value in key.items()
            )
            rows = side.rows("row", {**parts, "is_key": sql.SQL(" AND ").join(conditions)})
            contents.append(rows[0]["content"] if rows else None)
        return None if contents[0] == contents[1] else dict(zip(SIDES, contents, strict=True))

    def _views(self, name: str, columns: Sequence[str]) -> Iterator[tuple[Side, dict[str, sql.Composable]]]:
        """Yield each side with its view of a projection, and an alias that no column has."""
        alias = "row"
        while alias in columns:
            alias += "_"
        for side, app in zip(self._sides, self._apps, strict=True):
            yield side, {"row": sql.Identifier(alias), "view": sql.Identifier(app["schema"], name)}

    def _any_row_of(self, name: str, columns: Sequence[str]) -> Json | None:
        """Return a row of a view that only one side has, as each side has it."""
        sides = list(self._views(name, columns))
        sums = [dict(side.each("row_sums", parts)) for side, parts in sides]
        parts_of_rows = sorted(sums[0].keys() | sums[1].keys())
        part = next((each for each in parts_of_rows if sums[0].get(each) != sums[1].get(each)), None)
        if part is None:
            return None
        rows = [
            {row["digest"]: row["content"] for row in side.rows("rows", parts, part=part)}
            for side, parts in sides
        ]
        digest = min(rows[0].keys() ^ rows[1].keys())
        return {side: known.get(digest) for side, known in zip(SIDES, rows, strict=True)}


def _literal(value: object) -> str:
    """Write a key's value from JSON as text that the server reads as the column's type."""
    return str(value).lower() if isinstance(value, bool) else str(value)
