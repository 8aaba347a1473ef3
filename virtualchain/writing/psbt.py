"""Transactions on their way to a signer and back (BIP 174); the node takes them apart."""

import base64
import binascii
from contextlib import suppress
from typing import Final

from virtualchain.bitcoin.node.answers import satoshi
from virtualchain.bitcoin.node.client import node_answer
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.transaction import read_inputs, read_outputs, write_transaction
from virtualchain.bitcoin.unsigned import unlock
from virtualchain.errors import MalformedBlock, NodeError, UsageError
from virtualchain.model import SpentOutput, TxIn
from virtualchain.writing.wallet import well_formed_of

MAGIC: Final = b"psbt\xff"


def read_signed(source: NodeSource, data: bytes) -> bytes:
    """Return the transaction in what a signer has written: a PSBT, binary or Base64, or hex.

    Raises UsageError if it is none of these, or signatures are missing.
    """
    if data.startswith(MAGIC):
        return finalize(source, base64.b64encode(data).decode("ascii"))
    text = b"".join(data.split())
    with suppress(ValueError, MalformedBlock):
        raw = bytes.fromhex(text.decode("ascii"))
        read_inputs(raw)
        return raw
    with suppress(binascii.Error):
        if base64.b64decode(text, validate=True).startswith(MAGIC):
            return finalize(source, text.decode("ascii"))
    raise UsageError("that is neither a PSBT (binary or Base64) nor a transaction in hex")


def finalize(source: NodeSource, psbt: str) -> bytes:
    """Return a signed PSBT's transaction; raises UsageError if signatures are missing, or it is not one."""
    try:
        done = source.rpc.call("finalizepsbt", psbt)
        inputs = [] if done["complete"] else source.rpc.call("analyzepsbt", psbt)["inputs"]
    except NodeError as error:
        answer = node_answer(error)
        if answer is None:
            raise
        raise UsageError(f"the PSBT cannot be read: {answer[1]}") from error
    with well_formed_of(source, "finalizepsbt"):
        if done["complete"]:
            return bytes.fromhex(done["hex"])
        missing = ", ".join(str(number) for number, item in enumerate(inputs) if not item.get("is_final"))
    raise UsageError(f"the PSBT has no complete signatures yet for its input {missing}: sign it first")


def with_made_up_signatures(source: NodeSource, psbt: str) -> bytes:
    """Return the transaction as it will look when it is signed."""
    with well_formed_of(source, "decodepsbt"):
        decoded = source.rpc.call("decodepsbt", psbt)
        inputs = []
        for spending, known in zip(decoded["tx"]["vin"], decoded["inputs"], strict=True):
            spent = known.get("witness_utxo") or known["non_witness_utxo"]["vout"][spending["vout"]]
            script_sig, witness = unlock(
                bytes.fromhex(spent["scriptPubKey"]["hex"]),
                [bytes.fromhex(item["pubkey"]) for item in known.get("bip32_derivs", ())],
                bytes.fromhex(known.get("redeem_script", {}).get("hex", "")),
                bytes.fromhex(known.get("witness_script", {}).get("hex", "")),
            )
            inputs.append(TxIn(spending["txid"], spending["vout"], script_sig, spending["sequence"], witness))
        outputs = [
            SpentOutput(satoshi(output["value"]), bytes.fromhex(output["scriptPubKey"]["hex"]))
            for output in decoded["tx"]["vout"]
        ]
        return write_transaction(inputs, outputs)


def without_signatures(raw: bytes) -> bytes:
    """Return a transaction without anything that its inputs show."""
    stripped = [item._replace(script_sig=b"", witness=()) for item in read_inputs(raw)]
    return write_transaction(stripped, read_outputs(raw)[1])
