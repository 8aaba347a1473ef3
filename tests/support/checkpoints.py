"""What tests of checkpoints share: an app whose inputs embed consensus hashes, and the hostile hand."""

import io
import json
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg

from virtualchain import App, Rejected, State
from virtualchain.app.contract import read_contract
from virtualchain.checkpoint import archive
from virtualchain.checkpoint.create import create
from virtualchain.checkpoint.manifest import NAME, Manifest, read_manifest
from virtualchain.checkpoint.rows import Rows
from virtualchain.consensus.state_hash import digest_number
from virtualchain.reading import views

TABLES = """
    CREATE TABLE words (
        word text COLLATE "C" PRIMARY KEY, times integer NOT NULL CHECK (times > 0), hash text COLLATE "C",
        note bytea, data jsonb
    );
    CREATE TABLE pairs (
        a text COLLATE "C" NOT NULL REFERENCES words DEFERRABLE, b integer, PRIMARY KEY (b, a)
    );
"""


def words(name: str = "words", **options: Any) -> App:
    """Make an app that counts words; `HASH word` is taken only while the consensus hash is fresh."""
    app = App(name, magic=b"wd", projections=TABLES, **{"first_block_id": 102, **options})

    def parse(payload: bytes) -> dict[str, str]:
        text = payload.decode()
        return {"hash": text[:32], "word": text[33:]} if text[32:33] == " " else {"hash": "", "word": text}

    def check(op: dict[str, Any], state: State) -> bool | Rejected:
        return not op["hash"] or state.is_fresh(op["hash"]) or Rejected("the hash is not fresh")

    def commit(op: dict[str, Any], state: State, block_id: int) -> None:
        word = op["word"]
        if word.startswith("-"):
            state.execute("DELETE FROM pairs WHERE a = %s", [word[1:]])
            state.execute("DELETE FROM words WHERE word = %s", [word[1:]])
            return
        state.execute(
            """INSERT INTO words VALUES (%s, 1, %s, %s, %s)
                ON CONFLICT (word) DO UPDATE SET times = words.times + 1""",
            [word, op["hash"] or None, word.encode() + b"\0\n", json.dumps({"w": word + "\t\\"})],
        )
        state.execute("INSERT INTO pairs VALUES (%s, %s) ON CONFLICT DO NOTHING", [word, block_id])

    app.add(b"o", parse=parse, check=check, commit=commit)
    return app


def say(node: Any, *texts: str) -> None:
    """Mine a block for each text, which holds the ops between its spaces; `HASH:word` embeds a hash."""
    for text in texts:
        node.mine([node.send(b"wdo" + word.replace(":", " ").encode()) for word in text.split()])


def make(url: str, file: Path, app: str = "words", **options: Any) -> Manifest:
    """Write a checkpoint of an app in a database."""
    with views.snapshot(url) as connection:
        return create(connection, app, file, **options)


def contracts(*apps: object) -> list[Any]:
    """Read what apps declare."""
    return [read_contract(app) for app in apps]


def content(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Give the rows of the app words, and its digests by block, whatever block a row is known since."""
    with psycopg.connect(url) as connection:
        return {
            name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2".encode()).fetchall()
            for name in ("words.words", "words.pairs", "virtualchain.snapshots")
        }


def words_in(url: str) -> set[str]:
    """Give the words that the app words holds."""
    return {row[0] for row in content(url)["words.words"]}


def forge(
    file: Path,
    to: Path,
    members: Callable[[dict[str, bytes]], None] = lambda _: None,
    manifest: Callable[[dict[str, Any]], None] = lambda _: None,
    *,
    is_careful: bool = False,
) -> Path:
    """Write a changed copy of a checkpoint whose digests, sizes and rows are those of what it holds then.

    A careful forger sets the state hash right, too.
    """
    with tarfile.open(file) as tar:
        found = {item.name: tar.extractfile(item).read() for item in tar}  # type: ignore[union-attr]
    told = json.loads(found.pop(NAME))
    members(found)
    if is_careful:
        rehash(found, told)
    for name, data in found.items():
        rows = data.count(b"\n") if name != "state" else 0
        told["members"][name] = {"size": len(data), "sha256": sha256(data).hexdigest(), "rows": rows}
    manifest(told)
    with archive.writing(to) as writer:
        for name, data in [
            *found.items(),
            (NAME, json.dumps(told, indent=1, sort_keys=True).encode() + b"\n"),
        ]:
            with writer.member(name) as member:
                member.write(data)
    return to


def manifest_in(file: Path) -> Manifest:
    """Read a checkpoint's manifest as anybody's tar would."""
    with tarfile.open(file) as tar:
        opened = tar.extractfile(NAME)
        assert opened is not None
        return read_manifest(io.BytesIO(opened.read()).getvalue())


def rehash(members: dict[str, bytes], told: dict[str, Any]) -> None:
    """Let a forged file's state hash be that of its rows, wherever it stands, as a careful forger does."""
    rows = Rows()
    for table in told["tables"]:
        lines = members[table["member"]].splitlines(keepends=True)
        list(rows.take(table["name"], len(table["columns"]), lines))
    told["state_hash"] = digest_number(rows.number)
    before, _, last = members["snapshots"].rstrip(b"\n").rpartition(b"\n")
    cells = [*last.split(b"\t")[:3], told["state_hash"].encode()]
    members["snapshots"] = before + b"\n" + b"\t".join(cells) + b"\n"
