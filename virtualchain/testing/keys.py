"""Named identities: the same name has the same key everywhere, so tests can speak of alice and bob."""

import hashlib
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from embit import script as embit_script
from embit.ec import PrivateKey

from virtualchain.bitcoin.networks import network as find_network
from virtualchain.bitcoin.script import classify
from virtualchain.errors import UsageError

KINDS: Final = ("p2wpkh", "p2pkh", "p2sh-p2wpkh", "p2tr")
"""The forms in which a key can own an output; p2tr is spent by its key path."""


@dataclass(frozen=True, slots=True)
class Key:
    """A named private key and the output script by which it owns coins. For tests: anyone can derive it."""

    name: str
    kind: str
    secret: bytes = field(repr=False)
    public_key: bytes
    """33 bytes, compressed."""
    script_pubkey: bytes

    def address(self, network: str = "regtest") -> str:
        """Give the address of `script_pubkey` on a network, named as in `virtualchain.bitcoin.networks`."""
        return classify(self.script_pubkey, find_network(network))[1][0]


@cache
def key(name: str, kind: str = "p2wpkh") -> Key:
    """Derive the key of a name, owning its coins in the form `kind` (one of `KINDS`, else UsageError)."""
    if kind not in KINDS:
        raise UsageError(f"a key owns coins as one of {', '.join(KINDS)}, not {kind!r}")
    secret = hashlib.sha256(f"virtualchain.testing:{name}".encode()).digest()
    public = PrivateKey(secret).get_public_key()
    return Key(name, kind, secret, public.sec(), _script(kind, public))


def _script(kind: str, public: object) -> bytes:
    if kind == "p2pkh":
        script = embit_script.p2pkh(public)
    elif kind == "p2tr":
        script = embit_script.p2tr(public)
    else:
        script = embit_script.p2wpkh(public)
        if kind == "p2sh-p2wpkh":
            script = embit_script.p2sh(script)
    return bytes(script.data)
