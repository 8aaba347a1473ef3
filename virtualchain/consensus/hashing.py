"""The two hash functions from which consensus hashes, block hashes and Bitcoin scripts are built."""

import hashlib


def sha256d(data: bytes) -> bytes:
    """Hash twice with SHA-256: 32 bytes, in the order in which they are computed."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def hash160(data: bytes) -> bytes:
    """Hash with SHA-256, then RIPEMD-160: the 20 bytes that an address carries."""
    return _ripemd160(hashlib.sha256(data).digest())


def _ripemd160(data: bytes) -> bytes:
    try:
        return hashlib.new("ripemd160", data, usedforsecurity=False).digest()
    except ValueError:  # an OpenSSL build without its legacy digests
        # Imported only here: loading embit takes longer than everything else, and few builds need it.
        from embit.util.py_ripemd160 import ripemd160  # noqa: PLC0415

        return bytes(ripemd160(data))
