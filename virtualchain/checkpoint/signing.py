"""Sign files and check signatures, with ed25519 keys in files as OpenSSH and OpenSSL write them.

The cryptographic library is the extra `sign`; it is imported only when a key is used, so unsigned files
do not need it. A public key is represented by the 64 hex digits of its 32 bytes.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from virtualchain.checkpoint.manifest import Signature
from virtualchain.errors import InvalidSignature, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_HEX: Final = re.compile("[0-9a-fA-F]{64}")
_LARGEST: Final = 100_000
"""The largest key file that is read, in bytes."""


def make_key(file: Path) -> str:
    """Create a private key (PEM, PKCS #8) in a new file with mode 600; return its public key."""
    serialization = _library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - the extra

    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        file.touch(0o600, exist_ok=False)
        file.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{file} cannot be created: {error.strerror}") from error
    return _hex_of(key.public_key())


def sign(message: bytes, files: Iterable[Path]) -> list[Signature]:
    """Sign a message with the key in each file; raises UsageError for a file without a key."""
    keys = [_private_key(file) for file in files]
    signatures = {_hex_of(key.public_key()): key.sign(message).hex() for key in keys}
    return [Signature(*pair) for pair in sorted(signatures.items())]


def check_signatures(
    message: bytes, signatures: Sequence[Signature], trusted: Sequence[str]
) -> tuple[str, ...]:
    """Return the public keys that signed; if any keys are trusted, one of them must be among these.

    Raises InvalidSignature for an invalid signature, or if no trusted key signed.
    """
    trusted_keys = [public_key(text) for text in trusted]
    if signatures:
        _library()
        from cryptography.exceptions import InvalidSignature as NotSigned  # noqa: PLC0415 - the extra
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - the extra
            Ed25519PublicKey,
        )

        for item in signatures:
            try:
                key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(item.public_key))
                key.verify(bytes.fromhex(item.signature), message)
            except (NotSigned, ValueError) as error:
                raise InvalidSignature(f"its signature by {item.public_key} is invalid") from error
    signers = tuple(item.public_key for item in signatures)
    if trusted_keys and not set(trusted_keys) & set(signers):
        by = f"only by {', '.join(signers)}" if signers else "by nobody"
        raise InvalidSignature(f"it is signed {by}, not by a trusted key: {', '.join(trusted_keys)}")
    return signers


def public_key(text: str) -> str:
    """Return a public key as hex, from 64 hex digits or from a file of `ssh-keygen` or `openssl`."""
    if _HEX.fullmatch(text):
        return text.lower()
    file = Path(text).expanduser()
    content = _read(file)
    if _HEX.fullmatch(content.decode("latin-1").strip()):
        return content.decode().strip().lower()
    serialization = _library()
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - the extra
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - the extra
        Ed25519PublicKey,
    )

    is_ssh = content.startswith(b"ssh-")
    load = serialization.load_ssh_public_key if is_ssh else serialization.load_pem_public_key
    try:
        key = load(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{file} holds no public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{file} holds no ed25519 key: `ssh-keygen -t ed25519` creates one")
    return _hex_of(key)


def _private_key(file: Path) -> "Ed25519PrivateKey":
    serialization = _library()
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - the extra
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - the extra
        Ed25519PrivateKey,
    )

    content = _read(file)
    is_ssh = b"OPENSSH PRIVATE KEY" in content
    load = serialization.load_ssh_private_key if is_ssh else serialization.load_pem_private_key
    try:
        key = load(content, password=None)
    except TypeError as error:  # it needs a password
        raise UsageError(f"the key in {file} has a passphrase: use a key without one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{file} holds no usable private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{file} holds no ed25519 key: `virtualchain checkpoint keygen FILE` creates one")
    return key


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_LARGEST)
    except OSError as error:
        raise UsageError(f"the key {file} cannot be read: {error.strerror}") from error


def _hex_of(key: "Ed25519PublicKey") -> str:
    return key.public_bytes_raw().hex()


def _library() -> ModuleType:
    try:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - the extra
    except ImportError as error:
        raise UsageError(
            "keys need a library that is not installed: pip install 'virtualchain[sign]'"
        ) from error
    return serialization
