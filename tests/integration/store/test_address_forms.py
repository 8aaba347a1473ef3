"""Other coins' addresses: the database writes and reads them as Python does."""

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from tests.unit.bitcoin.building import op_return, transaction
from virtualchain.bitcoin.block import StoredTransaction
from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.bitcoin.transaction import pack_outputs
from virtualchain.model import SpentOutput
from virtualchain.store.tape import Tape

OTHERS = [each for each in NETWORKS.values() if not each.is_bitcoin]
TWO_BYTES = replace(
    NETWORKS["namecoin"], name="two-bytes", coin="Zcoin", p2pkh=b"\x1c\xb8", p2sh=b"\x00\xbd", bech32_hrp=""
)
HASH = bytes(range(1, 21))
WITH_ADDRESS = (
    b"\x76\xa9\x14" + HASH + b"\x88\xac",
    b"\x76\xa9\x14" + bytes(20) + b"\x88\xac",
    b"\xa9\x14" + HASH + b"\x87",
    b"\x00\x14" + HASH,
    b"\x00\x20" + bytes(range(32)),
    b"\x51\x20" + bytes(range(32)),
    b"\x51\x02\x4e\x73",
    b"\x58\x20" + bytes(32),
    b"\x58\x1f" + bytes(31),
    b"\x59\x20" + bytes(32),
    b"\x5a\x20" + bytes(32),
)
SCRIPTS = (*WITH_ADDRESS, op_return(b"payload"), b"", b"\x21\x02" + bytes(32) + b"\xac")


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    """Connect to a database of its own."""
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


def stored(network: Network) -> StoredTransaction:
    """Spend each script, and pay to each."""
    raw = transaction(*SCRIPTS, script_sigs=[b""] * len(SCRIPTS))
    return StoredTransaction(raw, pack_outputs(SpentOutput(1, script) for script in SCRIPTS), network)


@pytest.mark.parametrize("network", [*OTHERS, TWO_BYTES], ids=lambda network: network.name)
def test_views_have_the_types_and_addresses_of_python(
    network: Network, connection: psycopg.Connection
) -> None:
    """Every kind of script on every coin, and on one whose versions have two bytes, also with a zero."""
    case, form = stored(network), network.address_form
    query = "SELECT vc.senders(%b, %b, '{}', %s::text), vc.outputs(%b, %s::text)"
    (row,) = connection.execute(query, (case.raw, case.spent, form, case.raw, form)).fetchall()
    assert row[1] == [output.as_dict() for output in case.outputs()]
    assert row[0] == [sender.as_dict() for sender in case.senders()]


@pytest.mark.parametrize("name", [each.name for each in OTHERS])
def test_addresses_of_the_deployments_coin_are_read(name: str, connection: psycopg.Connection) -> None:
    """Also by the version that is read and not shown; Bitcoin's addresses are none here."""
    network = NETWORKS[name]
    Tape(connection).bind(name, network.genesis_hash)
    query = "SELECT virtualchain.script_of(%s)"
    for output in stored(network).outputs():
        for address in output.addresses:
            assert connection.execute(query, (address,)).fetchone() == (bytes.fromhex(output.script_pubkey),)
    p2sh = b"\xa9\x14" + HASH + b"\x87"
    if network.p2sh_also_read:
        also = replace(network, p2sh=network.p2sh_also_read)
        (address,) = next(
            output.addresses for output in stored(also).outputs() if output.type == "scripthash"
        )
        assert connection.execute(query, (address,)).fetchone() == (p2sh,)
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="not an address"):
            connection.execute(query, (address[:-1] + ("1" if address[-1] != "1" else "2"),))
    for address in ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", ""):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="not an address"):
            connection.execute(query, (address,))


def test_a_deployment_from_before_learns_its_form(connection: psycopg.Connection) -> None:
    """The form of a database that is bound already is set when it is opened again; of another chain, not."""
    network = NETWORKS["litecoin-regtest"]
    connection.execute(
        "INSERT INTO vc.deployment (network, genesis_hash) VALUES (%s, decode(%s, 'hex'))",
        (network.name, network.genesis_hash),
    )
    form = "SELECT address_form FROM vc.deployment"
    with pytest.raises(Exception, match="this database follows litecoin-regtest"):
        Tape(connection).bind("regtest", NETWORKS["regtest"].genesis_hash)
    assert connection.execute(form).fetchone() == (None,)
    Tape(connection).bind(network.name, network.genesis_hash)
    assert connection.execute(form).fetchone() == ("6f:3a:c4:rltc:mweb",)
