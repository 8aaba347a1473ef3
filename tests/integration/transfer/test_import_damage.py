"""Damaged and forged exports: the error names the file and what is wrong, and nothing is written."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tests.support import representative
from tests.support.exported_rows import Rows
from tests.support.exports import Lines, change_manifest, change_rows, update_digest
from tests.support.servers import value
from virtualchain.bitcoin import compiled
from virtualchain.bitcoin.networks import NETWORKS
from virtualchain.errors import DamagedExport, UsageError, VirtualchainError
from virtualchain.testing.database import DatabaseServer
from virtualchain.transfer.exporting import export
from virtualchain.transfer.files import Format
from virtualchain.transfer.importing import import_tape
from virtualchain.transfer.manifest import read_manifest

Make = Callable[[Format], Path]
FORMS: tuple[Format, ...] = ("parquet", "csv")
RICH = 2_100_000_000_000_001


@pytest.fixture(scope="module")
def url(database_server: DatabaseServer) -> Iterator[str]:
    """Return a deployment with some inputs."""
    database = database_server.clone()
    representative.deploy(database)
    yield database
    database_server.drop(database)


@pytest.fixture(scope="module")
def undamaged(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with undamaged exports in both formats."""
    folder = tmp_path_factory.mktemp("whole")
    for form in FORMS:
        export(url, folder / form, form=form, what=["tape"])
    return folder


@pytest.fixture
def make(undamaged: Path, tmp_path: Path) -> Make:
    """Return a function that copies the export in a given format, to be damaged."""
    return lambda form: Path(shutil.copytree(undamaged / form, tmp_path / "export"))


@pytest.fixture(scope="module")
def database(database_server: DatabaseServer) -> Iterator[str]:
    """Return a database that every import must leave empty."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


def refuse(database: str, folder: Path, complaint: str, kind: type[Exception] = DamagedExport) -> str:
    """Check that an import is refused and nothing is written; return the message."""
    with pytest.raises(kind, match=complaint) as raised:
        import_tape(database, folder)
    for table in ("blocks", "inputs", "coverage", "deployment"):
        assert value(database, f"SELECT count(*) FROM vc.{table}") == 0
    return str(raised.value)


def cell(row: int, column: int, change: Callable[[str], str]) -> Callable[[Lines], None]:
    """Return a change of one value; row 0 is the header."""

    def changed(lines: Lines) -> None:
        before = lines[row][column]
        lines[row][column] = change(before)
        assert lines[row][column] != before

    return changed


def flip(text: str) -> str:
    """Change the last hex digit of a text."""
    return text[:-1] + ("1" if text[-1] == "0" else "0")


def in_json(change: Callable[[Any], object]) -> Callable[[str], str]:
    """Return a change of a value that is JSON."""

    def changed(text: str) -> str:
        document = json.loads(text)
        change(document)
        return json.dumps(document)

    return changed


BLOCKS: dict[str, tuple[Callable[[Lines], object], str]] = {
    "a header": (cell(50, 5, flip), "block 49 .* does not match its header"),
    "a hash": (cell(50, 1, flip), "block 49 .* does not match its header"),
    "a parent": (cell(50, 2, flip), "block 49 .* does not match its header"),
    "a time": (
        cell(50, 3, lambda text: f"2009{text[4:]}"),
        "block 49 .* hash, parent or time does not match",
    ),
    "the work": (cell(50, 4, lambda text: text + "0"), "its work does not match its header"),
    "work beyond all": (cell(1, 4, lambda _: "9" * 90), "is not an amount of work"),
    "no work": (cell(50, 4, lambda _: "much"), "block 49: 'much' is not an amount of work"),
    "a short header": (cell(50, 5, lambda text: text[:-2]), "a header has 80 bytes, not 79"),
    "a block gone": (lambda lines: lines.pop(50), "block 50 .* is not a child of block 48"),
    "the first block gone": (
        lambda lines: lines.pop(1),
        "block 1 .* does not match the manifest, which has block 0",
    ),
    "the last block gone": (lambda lines: lines.pop(), "does not match the manifest, which has block"),
    "a block twice": (lambda lines: lines.insert(50, lines[50]), "is not a child of block"),
    "heights": (cell(50, 0, lambda _: "77"), "block 77 .* is not a child of block 48"),
    "a negative height": (cell(1, 0, lambda _: "-1"), "there is no such height"),
    "no height": (cell(50, 0, lambda _: "٤٩"), "after row 49: '٤٩' is not a number"),
    "no bytes": (cell(50, 5, lambda _: "\\xzz"), "is not a bytea value"),
    "no time": (cell(50, 3, lambda _: "infinity"), "Invalid isoformat"),
    "a value too few": (lambda lines: lines[50].pop(), "after row 49: the next row has 5 values"),
    "other columns": (cell(0, 0, lambda _: "height"), "its columns are height, hash"),
    "no block": (lambda lines: lines.__delitem__(slice(1, None)), "it holds no block"),
    "no line": (lambda lines: lines.clear(), "its columns are$"),
}
INPUTS: dict[str, tuple[Callable[[Lines], object], str]] = {
    "a txid": (cell(3, 2, flip), "column txid does not match the raw transaction"),
    "raw bytes": (cell(3, 7, lambda text: text[:-2]), "a transaction ends 1 bytes too early"),
    "other raw bytes": (
        lambda lines: lines[3].__setitem__(7, lines[4][7]),
        "does not match the raw transaction",
    ),
    "a fee": (cell(3, 6, lambda text: text + "0"), "column fee does not match the raw transaction"),
    "a sender's value": (
        cell(3, 4, in_json(lambda items: items[0].update(value=items[0]["value"] + 1))),
        "column fee does not match the raw transaction",
    ),
    "a sender's address": (
        cell(3, 4, in_json(lambda items: items[0].update(addresses=["bcrt1qthief"]))),
        "column senders does not match the raw transaction",
    ),
    "a sender's key": (
        cell(3, 4, in_json(lambda items: items[0].update(public_keys=[]))),
        "column senders does not match the raw transaction",
    ),
    "a sender's place": (
        cell(3, 4, in_json(lambda items: items[0].update(vout=7))),
        "column senders does not match the raw transaction",
    ),
    "a script in capitals": (
        cell(3, 4, in_json(lambda items: items[0].update(script_pubkey=items[0]["script_pubkey"].upper()))),
        "column senders does not match the raw transaction",
    ),
    "no script": (cell(3, 4, in_json(lambda items: items[0].update(script_pubkey="zz"))), "non-hexadecimal"),
    "no sender": (cell(3, 4, lambda _: "[]"), "it has 1 inputs and 0 senders"),
    "more than there is": (
        cell(3, 4, in_json(lambda items: items[0].update(value=RICH))),
        "no valid value or no script",
    ),
    "half a satoshi": (
        cell(3, 4, in_json(lambda items: items[0].update(value=0.5))),
        "no valid value or no script",
    ),
    "an output's type": (
        cell(3, 5, in_json(lambda items: items[0].update(type="pubkey"))),
        "column outputs does not match the raw transaction",
    ),
    "an output too many": (
        cell(3, 5, in_json(lambda items: items.append(items[0]))),
        "column outputs does not match the raw transaction",
    ),
    "no JSON": (cell(3, 4, lambda _: "[{"), "are not JSON"),
    "deep JSON": (cell(3, 4, lambda _: "[" * 100_000), "are not JSON"),
    "other JSON": (cell(3, 5, lambda _: "7"), "are not a list of objects"),
    "no magic": (cell(3, 3, lambda _: "{}"), "it has no magic, and no app's tracking asked for it"),
    "a magic twice": (
        cell(3, 3, lambda text: text[:-1] + "," + text[1:]),
        "its magics are not a sorted list",
    ),
    "a magic that is none": (cell(3, 3, lambda _: "{re}"), "is not an array of bytea values"),
    "an input twice": (lambda lines: lines.insert(3, lines[3]), "transaction .* is out of order"),
    "inputs turned round": (lambda lines: lines.append(lines.pop(1)), "is out of order"),
    "a block that is not there": (cell(-1, 0, lambda _: "5000"), "it has inputs above block"),
    "the coinbase": (
        cell(1, 1, lambda _: "0"),
        "the first transaction of a block is a coinbase, and it is not",
    ),
    "a place beyond all": (cell(1, 1, lambda _: str(2**31)), "there is no such position"),
}


@pytest.mark.parametrize(
    ("table", "case"),
    [*(("blocks", case) for case in BLOCKS), *(("inputs", case) for case in INPUTS)],
)
def test_forged_rows_are_noticed(make: Make, database: str, table: str, case: str) -> None:
    """Forged rows do not match headers and raw transactions, even if the manifest was adapted."""
    change, complaint = (BLOCKS if table == "blocks" else INPUTS)[case]
    folder = make("csv")
    change_rows(folder, table, change)
    assert f"export/{table}.csv" in refuse(database, folder, complaint)


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize("table", ["blocks", "inputs"])
def test_a_file_that_changed_is_noticed(make: Make, database: str, form: Format, table: str) -> None:
    """A file that was cut off, changed by a bit, or removed is noticed by its digest before it is read."""
    folder = make(form)
    path = folder / f"{table}.{form}"
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for damaged in (content[:-1], flipped, b"", content + b"\n"):
        path.write_bytes(damaged)
        assert str(path) in refuse(database, folder, "is not the file that was exported.*copy it again")
    path.unlink()
    refuse(database, folder, f"{path} is missing")
    path.mkdir()
    refuse(database, folder, f"{path} is missing")


def test_every_file_is_checked(url: str, tmp_path: Path, database: str) -> None:
    """Damage to a file that an import does not read is noticed, too."""
    export(url, tmp_path / "export", what=["all"])
    (tmp_path / "export" / "representative.marks.parquet").write_bytes(b"PAR1")
    refuse(database, tmp_path / "export", "representative.marks.parquet is not the file")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(400) + b"PAR1", bytes(range(256)) * 8])
@pytest.mark.parametrize("table", ["blocks", "inputs"])
def test_invalid_parquet_is_reported(make: Make, database: str, table: str, content: bytes) -> None:
    """A file that is not Parquet is reported, even if its digest is right."""
    folder = make("parquet")
    (folder / f"{table}.parquet").write_bytes(content)
    update_digest(folder, f"{table}.parquet")
    refuse(database, folder, f"{table}.parquet cannot be read after row 0")


def test_parquet_with_other_columns_is_reported(make: Make, database: str) -> None:
    """Columns of other names or types, and missing values, are reported."""
    folder = make("parquet")
    path = folder / "blocks.parquet"
    table = parquet.read_table(path)
    place = table.schema.get_field_index("hash")
    wide = table.schema.field("block_id").with_type(pa.int64())
    gone = pa.array([None] * len(table), pa.string())
    for other, complaint in (
        (table.drop_columns(["time"]), "its columns are block_id int32, hash string"),
        (table.cast(table.schema.set(0, wide)), "its columns are block_id int64"),
        (table.set_column(place, "hash", gone), "after row 0: a value is missing"),
    ):
        parquet.write_table(other, path)
        update_digest(folder, path.name)
        refuse(database, folder, complaint)


def test_refusals_are_those_of_the_code_that_checks_each_row(
    make: Make, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is changed, wherever a row group begins or ends: compiled code does not change the message."""
    path = make("parquet") / "inputs.parquet"
    table, change = parquet.read_table(path), Rows(7, NETWORKS["regtest"]).changed
    refused = set()
    fee = table.schema.get_field_index("fee")
    for at, size in itertools.product((0, 6, 7, 13, -1), (1, 7, 1000)):
        rows = [tuple(row.values()) for row in table.to_pylist()]
        rows[at] = change(rows[at])
        # Some changes are none that could be noticed. The last row is wrong, too.
        rows[-1] = (*rows[-1][:fee], rows[-1][fee] + 1, *rows[-1][fee + 1 :])
        arrays = [
            pa.array(values, field.type)
            for values, field in zip(zip(*rows, strict=True), table.schema, strict=True)
        ]
        parquet.write_table(pa.table(arrays, schema=table.schema), path, row_group_size=size)
        update_digest(path.parent, path.name)
        messages = []
        for check_rows in (compiled.check_rows, None):
            monkeypatch.setattr(compiled, "check_rows", check_rows)
            with pytest.raises(DamagedExport) as raised:
                import_tape(database, path.parent)
            messages.append(str(raised.value))
        assert messages[0] == messages[1]
        refused.add(messages[0])
        monkeypatch.undo()
    assert len(refused) > 8


def test_a_wrong_number_of_rows_is_noticed(make: Make, database: str) -> None:
    """Inputs that were left out are noticed by their number, as blocks alone do not show them."""
    folder = make("csv")
    change_manifest(folder, lambda document: document["files"][1].update(rows=41))
    refuse(database, folder, "inputs.csv has 40 rows, but its manifest says 41")


def test_invalid_csv_is_reported(make: Make, database: str) -> None:
    """Invalid UTF-8, quotes that never end and null bytes are reported."""
    folder = make("csv")
    path = folder / "inputs.csv"
    content = path.read_bytes()
    for damaged in (content + b"\xff", content + b'1,"', content.replace(b"\n", b"\0\n")):
        path.write_bytes(damaged)
        update_digest(folder, path.name)
        refuse(database, folder, "inputs.csv cannot be read after row|inputs.csv is damaged")


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], type[Exception], str]] = {
    "another format": (
        lambda m: m.update(format="virtualchain-export-2"),
        UsageError,
        "reads only virtualchain-export-1",
    ),
    "no format": (lambda m: m.pop("format"), UsageError, "has the format null"),
    "a file elsewhere": (
        lambda m: m["files"][0].update(name="../blocks.csv"),
        DamagedExport,
        "is not a file name",
    ),
    "a file anywhere": (
        lambda m: m["files"][0].update(name="/etc/passwd"),
        DamagedExport,
        "is not a file name",
    ),
    "a file of another kind": (
        lambda m: m["files"][0].update(name="blocks.txt"),
        DamagedExport,
        "is missing",
    ),
    "a file twice": (
        lambda m: m["files"].append(m["files"][0]),
        DamagedExport,
        "two files have the same name",
    ),
    "no files": (lambda m: m.update(files=[]), UsageError, "holds no tape"),
    "no coverage": (lambda m: m.pop("coverage"), DamagedExport, "'coverage' is missing"),
    "odd coverage": (
        lambda m: m["coverage"][0].update(until_block=-3),
        DamagedExport,
        "is not a block height",
    ),
    "a magic": (lambda m: m["coverage"][0].update(magic=7), DamagedExport, "7' is not of type str"),
    "an unknown network": (lambda m: m.update(network="moonnet"), DamagedExport, "no network 'moonnet'"),
    "another network": (
        lambda m: m.update(network="signet"),
        DamagedExport,
        "no network 'signet' with the genesis",
    ),
    "no network": (
        lambda m: m.update(network=None, genesis_hash=None),
        DamagedExport,
        "it cannot hold blocks",
    ),
    "other ends": (
        lambda m: m["blocks"]["last"].update(hash="00" * 32),
        DamagedExport,
        "does not match the manifest",
    ),
    "ends turned round": (
        lambda m: m["blocks"]["first"].update(block_id=900),
        DamagedExport,
        "cannot hold blocks",
    ),
    "a height that is text": (
        lambda m: m["blocks"]["first"].update(block_id="0"),
        DamagedExport,
        "is not of type int",
    ),
    "no object": (lambda m: m.update(apps=[7]), DamagedExport, "is not an object"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_forged_manifest_is_noticed(make: Make, database: str, case: str) -> None:
    """Its values must be consistent, and its file names must not lead out of the folder."""
    change, kind, complaint = MANIFESTS[case]
    folder = make("csv")
    change_manifest(folder, change)
    assert "export" in refuse(database, folder, complaint, kind)


def test_another_network_with_its_own_genesis_is_noticed(make: Make, database: str) -> None:
    """Blocks of one network are not imported as those of another."""
    folder = make("csv")
    genesis = "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"
    change_manifest(folder, lambda document: document.update(network="signet", genesis_hash=genesis))
    refuse(database, folder, "is not block 0 of signet")


@pytest.mark.parametrize(
    "content", ["", "7", "null", "[]", "{", "\ud800", "[" * 100_000, '{"format": 1e999}']
)
def test_an_invalid_manifest_is_reported(tmp_path: Path, content: str) -> None:
    """Any other content raises one of our errors, which names the file."""
    (tmp_path / "manifest.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(VirtualchainError, match=r"manifest\.json"):
        read_manifest(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("network", "genesis_hash", "blocks", "coverage", "apps", "files", "virtualchain")
PARTS = st.dictionaries(
    st.sampled_from(
        ("name", "rows", "bytes", "sha256", "columns", "magic", "rule", "from_block", "until_block")
    ),
    VALUES,
)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES | st.lists(PARTS, max_size=2), min_size=5))
def test_no_manifest_causes_another_error(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]
) -> None:
    """Any manifest is either read or refused with one of our errors."""
    folder = tmp_path_factory.mktemp("manifest")
    (folder / "manifest.json").write_text(json.dumps({"format": "virtualchain-export-1", **document}))
    with suppress(VirtualchainError):
        read_manifest(folder)
