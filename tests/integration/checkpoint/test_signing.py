"""Signatures of checkpoints: keys, signers, and files that no trusted key signed."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.checkpoints import contracts, create_checkpoint, forge, say, words
from tests.support.tables import tables
from virtualchain.checkpoint import archive
from virtualchain.checkpoint.apply import apply
from virtualchain.checkpoint.signing import make_key, public_key
from virtualchain.checkpoint.verify import verify
from virtualchain.engine.options import Options
from virtualchain.errors import InvalidCheckpoint, UsageError
from virtualchain.testing import FakeNode

Run = Callable[..., int]


def signers(file: Path, *trusted: str) -> tuple[str, ...]:
    """Verify a file; return the keys that signed it."""
    with archive.reading(file) as reader:
        return verify(reader, trusted).signers


@pytest.fixture
def running(fake_node: FakeNode, run: Run) -> None:
    """Run an app to create checkpoints of."""
    say(fake_node, "one two", "three")
    run(words())


@pytest.mark.usefixtures("running")
def test_who_signed(database_url: str, tmp_path: Path) -> None:
    """Several keys may sign, with the same bytes in any order; one trusted key among them is enough."""
    first, second, other = (make_key(tmp_path / name) for name in ("first", "second", "other"))
    create_checkpoint(database_url, tmp_path / "a", keys=[tmp_path / "first", tmp_path / "second"])
    create_checkpoint(database_url, tmp_path / "b", keys=[tmp_path / "second", tmp_path / "first"])
    create_checkpoint(database_url, tmp_path / "unsigned")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert signers(tmp_path / "a") == tuple(sorted((first, second)))
    assert signers(tmp_path / "a", other, second) == tuple(sorted((first, second)))
    assert signers(tmp_path / "unsigned") == ()
    with pytest.raises(InvalidCheckpoint, match=f"signed only by .*not by a trusted key: {other}"):
        signers(tmp_path / "a", other)
    with pytest.raises(InvalidCheckpoint, match="signed by nobody"):
        signers(tmp_path / "unsigned", other)


@pytest.mark.usefixtures("running")
def test_a_signature_covers_the_whole_manifest(database_url: str, tmp_path: Path) -> None:
    """Values that no digest covers, such as the block's hash, and the key cannot be changed once signed."""
    make_key(tmp_path / "key")
    mallory = make_key(tmp_path / "mallory")
    create_checkpoint(database_url, tmp_path / "file", keys=[tmp_path / "key"])
    for change in (
        lambda document: document.update(block_hash="00" * 32),
        lambda document: document.update(version="2"),
        lambda document: document["signatures"][0].update(public_key=mallory),
    ):
        forged = forge(tmp_path / "file", tmp_path / "forged", manifest=change)
        with pytest.raises(InvalidCheckpoint, match=r"its signature by .* is invalid"):
            signers(forged)


@pytest.mark.usefixtures("running")
def test_an_untrusted_file_changes_nothing(database_url: str, tmp_path: Path) -> None:
    """It is refused; one that a trusted key signed is applied, and its signers are recorded."""
    key, other = make_key(tmp_path / "key"), make_key(tmp_path / "other")
    create_checkpoint(database_url, tmp_path / "file", keys=[tmp_path / "key"])
    before = tables(database_url)
    with pytest.raises(InvalidCheckpoint, match="not by a trusted key"):
        apply(
            database_url,
            tmp_path / "file",
            contracts(words()),
            trusted=(other,),
            options=Options(state_folder=tmp_path),
        )
    assert tables(database_url) == before
    apply(
        database_url,
        tmp_path / "file",
        contracts(words()),
        trusted=(key, other),
        options=Options(state_folder=tmp_path),
    )
    assert f'"signers": ["{key}"]' in tables(database_url)["vc.checkpoints"][0]


def test_keys_of_other_programs(tmp_path: Path) -> None:
    """Public keys are read as `ssh-keygen` and `openssl` write them, as hex, and from a file with hex."""
    from cryptography.hazmat.primitives import serialization as kinds
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    public = key.public_key()
    hexed = public.public_bytes_raw().hex()
    (tmp_path / "ssh.pub").write_bytes(
        public.public_bytes(kinds.Encoding.OpenSSH, kinds.PublicFormat.OpenSSH) + b" me@home\n"
    )
    (tmp_path / "pem").write_bytes(
        public.public_bytes(kinds.Encoding.PEM, kinds.PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "hex").write_text(f"{hexed.upper()}\n")
    for text in (hexed, hexed.upper(), *(str(tmp_path / name) for name in ("ssh.pub", "pem", "hex"))):
        assert public_key(text) == hexed


@pytest.mark.usefixtures("running")
def test_unusable_keys(database_url: str, tmp_path: Path) -> None:
    """A passphrase, another kind of key, no key and no file are refused, and no checkpoint is left behind."""
    from cryptography.hazmat.primitives import serialization as kinds
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    ssh = (kinds.Encoding.PEM, kinds.PrivateFormat.OpenSSH)
    secret = kinds.BestAvailableEncryption(b"secret")
    pem = (kinds.Encoding.PEM, kinds.PrivateFormat.PKCS8)
    locked = Ed25519PrivateKey.generate().private_bytes(*pem, secret)
    curve = generate_private_key(SECP256R1())
    (tmp_path / "locked").write_bytes(locked)
    (tmp_path / "ssh").write_bytes(Ed25519PrivateKey.generate().private_bytes(*ssh, kinds.NoEncryption()))
    (tmp_path / "curve").write_bytes(curve.private_bytes(*ssh, kinds.NoEncryption()))
    (tmp_path / "text").write_text("secret")
    for name, message in (
        ("locked", "has a passphrase"),
        ("curve", "holds no ed25519 key"),
        ("text", "holds no usable private key"),
        ("none", "cannot be read: No such file"),
    ):
        with pytest.raises(UsageError, match=message):
            create_checkpoint(database_url, tmp_path / "file", keys=[tmp_path / name])
    assert not (tmp_path / "file").exists()
    create_checkpoint(database_url, tmp_path / "file", keys=[tmp_path / "ssh"])
    with pytest.raises(UsageError, match="cannot be created: File exists"):
        make_key(tmp_path / "ssh")
    with pytest.raises(UsageError, match="holds no public key"):
        signers(tmp_path / "file", str(tmp_path / "text"))
    assert (tmp_path / "ssh").stat().st_size > 100


@pytest.mark.usefixtures("running")
def test_unsigned_files_do_not_need_the_library(database_url: str, tmp_path: Path) -> None:
    """Only keys and signatures need it, and the message says how to install it."""
    make_key(tmp_path / "key")
    create_checkpoint(database_url, tmp_path / "unsigned")
    create_checkpoint(database_url, tmp_path / "signed", keys=[tmp_path / "key"])
    code = """
import sys
sys.modules["cryptography"] = None
from virtualchain.cli import main
main()
"""

    def show(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, "checkpoint", "show", str(tmp_path / name)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert show("unsigned").returncode == 0
    done = show("signed")
    assert done.returncode == 2
    assert "pip install 'virtualchain[sign]'" in done.stderr
