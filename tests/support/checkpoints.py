"""An app whose inputs embed consensus hashes, and functions that create and forge its checkpoints."""

import io
import json
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg

from virtualchain import App, Jsonb, Rejected, State
from virtualchain.app.declarations import read_contract
from virtualchain.checkpoint import archive
from virtualchain.checkpoint.create import create
from virtualchain.checkpoint.manifest import NAME, Manifest, Table, read_manifest
from virtualchain.checkpoint.rows import RowDigest
from virtualchain.consensus.row_proofs import state_root
from virtualchain.consensus.state_hash import digest_number
from virtualchain.model import Json
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
    """Return an app that counts words; it accepts `HASH word` only while the consensus hash is fresh."""
    app = App(name, magic=b"wd", **{"projections": TABLES, "first_block_id": 102, **options})

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
            [word, op["hash"] or None, word.encode() + b"\0\n", Jsonb({"w": word + "\t\\"})],
        )
        state.execute("INSERT INTO pairs VALUES (%s, %s) ON CONFLICT DO NOTHING", [word, block_id])

    app.add(b"o", parse=parse, check=check, commit=commit)
    return app


def say(node: Any, *texts: str) -> None:
    """Mine a block for each text, with an op for each of its words; `HASH:word` embeds a hash."""
    for text in texts:
        node.mine([node.send(b"wdo" + word.replace(":", " ").encode()) for word in text.split()])


def create_checkpoint(url: str, file: Path, app: str = "words", **options: Any) -> Manifest:
    """Write a checkpoint of an app in a database to a file."""
    with views.snapshot(url) as connection:
        return create(connection, app, file, **options)


def contracts(*apps: object) -> list[Any]:
    """Return the contracts of apps."""
    return [read_contract(app) for app in apps]


def content(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of the app words, without the blocks that they date from, and its digests by block."""
    with psycopg.connect(url) as connection:
        return {
            name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2".encode()).fetchall()
            for name in ("words.words", "words.pairs", "virtualchain.snapshots")
        }


def words_in(url: str) -> set[str]:
    """Return the words that the app words has counted."""
    return {row[0] for row in content(url)["words.words"]}


def forge(
    file: Path,
    to: Path,
    members: Callable[[dict[str, bytes]], None] = lambda _: None,
    manifest: Callable[[dict[str, Any]], None] = lambda _: None,
    *,
    is_careful: bool = False,
) -> Path:
    """Write a changed copy of a checkpoint, with digests, sizes and row counts that match its new members.

    A careful forger corrects state hash and state root, too.
    """
    with tarfile.open(file) as tar:
        contents = {item.name: tar.extractfile(item).read() for item in tar}  # type: ignore[union-attr]
    document = json.loads(contents.pop(NAME))
    members(contents)
    tables = rehash(contents, document) if is_careful else None
    for name, data in contents.items():
        rows = data.count(b"\n") if name != "state" else 0
        document["members"][name] = {"size": len(data), "sha256": sha256(data).hexdigest(), "rows": rows}
    manifest(document)
    if tables is not None:
        digests = ("block_hash", "block_id", "consensus_hash", "genesis_hash", "state_hash")
        state = {name: document[name] for name in ("app", *digests)}
        document["state_root"] = state_root({**state, "tables": tables})
    with archive.writing(to) as writer:
        for name, data in [
            *contents.items(),
            (NAME, json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"),
        ]:
            with writer.member(name) as member:
                member.write(data)
    return to


def manifest_in(file: Path) -> Manifest:
    """Read a checkpoint's manifest with an ordinary tar reader."""
    with tarfile.open(file) as tar:
        opened = tar.extractfile(NAME)
        assert opened is not None
        return read_manifest(io.BytesIO(opened.read()).getvalue())


def rehash(members: dict[str, bytes], document: dict[str, Any]) -> list[Json]:
    """Set the state hash of a forged file to that of its rows, in the manifest and in the snapshots.

    Returns what the state says of its tables.
    """
    rows = RowDigest(range(2**31))
    for item in document["tables"]:
        table = Table(item["name"], tuple(item["columns"]), tuple(item["key"]), item["member"])
        rows.add(table, [members[table.member]])
    document["state_hash"] = digest_number(rows.number)
    before, _, last = members["snapshots"].rstrip(b"\n").rpartition(b"\n")
    cells = [*last.split(b"\t")[:3], document["state_hash"].encode()]
    members["snapshots"] = before + b"\n" + b"\t".join(cells) + b"\n"
    return rows.tables
