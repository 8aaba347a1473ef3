"""The two digests, with and without the legacy digests of OpenSSL."""

import hashlib
from typing import NoReturn

import pytest

from virtualchain.consensus.hashing import hash160, sha256d

EMPTY_HASH160 = "b472a266d0bd89c13706a4132ccfb16f7c3b9fcb"


def test_sha256d_of_nothing_is_the_known_digest() -> None:
    """The leaf of a block without ops."""
    assert sha256d(b"").hex() == "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456"


def test_hash160_of_nothing_is_the_known_digest() -> None:
    """Whatever this machine's OpenSSL offers, the bytes are the same."""
    assert hash160(b"").hex() == EMPTY_HASH160


def test_hash160_falls_back_where_openssl_has_no_ripemd160(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's RIPEMD-160 gives what OpenSSL's would."""

    def refuse(name: str, *args: object, **kwargs: object) -> NoReturn:
        raise ValueError(f"unsupported hash type {name}")

    genuine = [hash160(bytes([n]) * n) for n in range(1, 70)]
    monkeypatch.setattr(hashlib, "new", refuse)
    assert hash160(b"").hex() == EMPTY_HASH160
    assert [hash160(bytes([n]) * n) for n in range(1, 70)] == genuine
