"""Addresses: those of the BIPs, and the same as another implementation writes for any program or hash."""

from types import ModuleType

import pytest
from embit import base58, bech32
from hypothesis import given
from hypothesis import strategies as st

from virtualchain.bitcoin import addresses, compiled

FORMS = pytest.mark.parametrize("form", [addresses, compiled], ids=["interpreted", "as installed"])


@FORMS
@pytest.mark.parametrize(
    ("address", "version", "program"),
    [
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", 0, "751e76e8199196d454941c45d1b3a323f1433bd6"),
        (
            "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
            0,
            "1863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
        ),
        (
            "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y",
            1,
            "751e76e8199196d454941c45d1b3a323f1433bd6751e76e8199196d454941c45d1b3a323f1433bd6",
        ),
        ("bc1sw50qgdz25j", 16, "751e"),
        ("bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", 2, "751e76e8199196d454941c45d1b3a323"),
    ],
)
def test_addresses_of_the_bips(form: ModuleType, address: str, version: int, program: str) -> None:
    """The test vectors of BIP 350 are written as they are there."""
    assert form.write_address(address.partition("1")[0], version, bytes.fromhex(program)) == address


@FORMS
@given(st.sampled_from(["bc", "tb", "bcrt"]), st.integers(0, 16), st.binary(min_size=2, max_size=40))
def test_any_program(form: ModuleType, prefix: str, version: int, program: bytes) -> None:
    """Every version and every length that a witness program may have is written right."""
    encoding = bech32.Encoding.BECH32M if version else bech32.Encoding.BECH32
    digits = bech32.convertbits(program, 8, 5)
    expected = bech32.bech32_encode(encoding, prefix, [version, *digits])
    assert form.write_address(prefix, version, program) == expected


@FORMS
@given(st.integers(0, 30), st.binary(max_size=40))
def test_any_hash(form: ModuleType, zeros: int, rest: bytes) -> None:
    """Whatever is hashed, and however many bytes of zero it begins with, Base58Check is written right."""
    payload = bytes(zeros) + rest
    assert form.write_base58(payload) == base58.encode_check(payload)
