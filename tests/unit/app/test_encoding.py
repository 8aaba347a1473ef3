"""Writing inputs: opcodes by name, fields, heights and types, and the check that reads the payload back."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchain import App, Hex, Integer, Rejected, StateEngine, Text, build_input, build_output
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.payload import envelopes, first_op_return, runestone
from virtualchain.errors import InvalidApp, UsageError
from virtualchain.examples.notary import app as notary

HASH = "0f" * 16
DOCUMENT = "ab" * 32
BURNED = b"\x76\xa9\x14" + bytes(20) + b"\x88\xac"


def ledger() -> App:
    """Make an app with handlers of several kinds."""
    app = App("ledger", magic=(b"l", b"led"), max_payload=20)

    @app.opcode(b"p", fields={"amount": Integer(0, 255), "memo": Text(10)})
    class Pay:
        def parse(self, payload: bytes) -> Any:
            return {"amount": payload[0], "memo": payload[1:].decode()}

        def encode(self, amount: int, memo: str = "") -> bytes:
            return bytes([amount]) + memo.encode()

    @app.opcode(b"p", fields={"cents": Integer(0, 65_535)}, from_block=100)
    class PayCents:
        def parse(self, payload: bytes) -> Any:
            return {"cents": int.from_bytes(payload, "big")}

        def encode(self, cents: int) -> bytes:
            return cents.to_bytes(2, "big")

    @app.opcode(b"v", fields=["seen", "choice"], from_block=50)
    class Vote:
        def parse(self, payload: bytes) -> Any:
            return {"seen": payload[:16].hex(), "choice": payload[16]}

        def encode(self, choice: int, consensus_hash: str) -> bytes:
            return bytes.fromhex(consensus_hash) + bytes([choice])

    @app.opcode(b"\x01")
    class Mute:
        def parse(self, payload: bytes) -> Any:
            return {"payload": payload}

    return app


def refused(call: Callable[[], object]) -> str:
    """Return the message with which a call is refused."""
    with pytest.raises(UsageError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("opcode", ["claim", "Claim", b"c", "c", "63", "0x63"])
def test_an_opcode_has_several_names(opcode: str | bytes) -> None:
    """The handler's class, the byte, its character and its hex all name it."""
    assert notary.build_input(opcode, sha256=DOCUMENT) == b"ntc" + bytes.fromhex(DOCUMENT)


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["claim", "transfer", "revoke"]))
def test_the_notary_reads_what_it_writes(document: bytes, opcode: str) -> None:
    """All of its opcodes say which document, and nothing else."""
    payload = notary.build_input(opcode, sha256=document.hex())
    sender = {"addresses": ["a"], "sighash": ["ALL"]}
    recipient = {"addresses": ["b"], "type": "pubkeyhash"}
    op = notary.db_parse(1, payload[2:3], payload[3:], [sender], [], [recipient], 0, None)
    assert isinstance(op, dict)
    assert (payload[:2], op["sha256"]) == (b"nt", document.hex())


def test_underscores_may_part_the_words_of_a_name() -> None:
    """`pay_cents` is PayCents, as people write it."""
    assert ledger().build_input("pay_cents", cents=258) == b"lp\x01\x02"


def test_an_unknown_opcode_is_refused_with_the_known_ones() -> None:
    """The message lists what there is, by byte and name."""
    for opcode in ("claims", b"x", b"cc", "", None, 99):
        message = refused(lambda opcode=opcode: notary.build_input(opcode, sha256=DOCUMENT))  # type: ignore[misc]
        assert message.endswith("it has c (claim), r (revoke), t (transfer)")


def test_an_ambiguous_opcode_is_refused() -> None:
    """Two classes of one name, and a name that is another opcode's byte, are not chosen between."""
    app = App("x", magic=b"x")
    for opcode in (b"a", b"b"):
        app.opcode(opcode)(type("Do", (), {"parse": lambda _, payload: {"n": payload.hex()}}))
    app.opcode(b"c")(type("A", (), {"parse": lambda _, payload: {"n": payload.hex()}}))
    assert "'do' may mean a (do), b (do)" in refused(lambda: app.build_input("do"))
    assert "'a' may mean a (do), c (a)" in refused(lambda: app.build_input("a"))


def test_the_height_chooses_the_handler() -> None:
    """The newest rules count, unless a block is named; below its first block an opcode has none."""
    app = ledger()
    assert app.build_input("p", cents=1) == b"lp\0\1"
    assert app.build_input("p", amount=1, block_id=99) == b"lp\1"
    assert "it takes cents; unknown: amount" in refused(lambda: app.build_input("p", amount=1, block_id=100))
    message = refused(lambda: app.build_input("vote", choice=1, consensus_hash=HASH, block_id=49))
    assert "valid from block 50 on" in message


def test_wrong_fields_are_refused_with_the_right_ones() -> None:
    """Unknown and missing fields are named, beside those that the encoder takes."""
    app = ledger()
    message = refused(lambda: app.build_input("pay", block_id=1, memos="x"))
    assert (
        message == "app ledger, p (pay) (paycents): it takes amount, [memo]; unknown: memos; missing: amount"
    )


def test_values_are_checked_with_their_types_before_they_are_encoded() -> None:
    """The message has the field and what it must be, as a rejection has."""
    app = ledger()
    assert "field 'amount': out of range; it must be an int from 0 to 255" in refused(
        lambda: app.build_input("pay", amount=256, block_id=1)
    )
    assert "field 'memo': a value of type bytes" in refused(
        lambda: app.build_input("pay", amount=1, memo=b"x", block_id=1)
    )


def test_a_consensus_hash_reaches_the_encoder_that_asks_for_one() -> None:
    """Whoever sends passes the current one; an encoder without that parameter does not get it."""
    app = ledger()
    assert app.build_input("vote", choice=7, consensus_hash=HASH) == b"lv" + bytes.fromhex(HASH) + b"\7"
    assert app.build_input("p", cents=1, consensus_hash=HASH) == b"lp\0\1"
    assert "it needs the consensus hash of a recent block" in refused(lambda: app.build_input("v", choice=7))
    for wrong in ("0F" * 16, HASH[:-1], ""):
        message = refused(lambda wrong=wrong: app.build_input("v", choice=7, consensus_hash=wrong))  # type: ignore[misc]
        assert "is not a consensus hash" in message


def test_a_handler_without_encode_says_so() -> None:
    """The message says what to write."""
    assert "give its handler encode(**fields)" in refused(lambda: ledger().build_input("mute"))


def one(parse: Callable[..., Any], encode: Callable[..., Any], **options: Any) -> App:
    """Make an app with one opcode."""
    app = App("one", **{"magic": b"on", **options})
    app.add(b"e" if app.opcodes is not None else None, parse=parse, encode=encode)
    return app


@pytest.mark.parametrize(
    ("parse", "encode", "fields", "message"),
    [
        (lambda payload: None, lambda: b"", {}, "which parse rejects: not parsed"),
        (lambda payload: Rejected("too odd"), lambda: b"a", {}, "6f6e6561, which parse rejects: too odd"),
        (lambda payload: {"n": payload[9]}, lambda: b"", {}, "rejects: IndexError"),
        (lambda payload: {"n": int(payload)}, lambda n: b"x", {"n": 1}, "rejects: invalid literal"),
        (lambda payload: {"n": payload.decode()}, lambda: b"\0", {}, "rejects: field 'n'"),
        (lambda payload: {"n": len(payload)}, lambda n: bytes(n + 1), {"n": 1}, "is 1, .* reads 2"),
        (lambda payload: {"n": [1, 2]}, lambda n: b"", {"n": [1]}, r"is \[1\], .* reads \[1, 2\]"),
        (lambda payload: {"n": 2}, lambda n: b"", {"n": [1]}, r"is \[1\], .* reads 2"),
        (lambda payload: {"n": 1}, lambda n: b"", {"n": 2}, r"is 2, .* reads 1"),
        (lambda payload: {"n": {}}, lambda: b"", {}, "rejects: field 'n': a dict"),
        (lambda payload: {"n": 1}, lambda n: "x", {"n": 1}, "returned a str: expected bytes"),
        (
            lambda payload: {"n": 1},
            lambda n: bytes.fromhex(str(n)),
            {"n": "xy"},
            "refuses the fields: non-hex",
        ),
        (lambda payload: {"n": 1}, lambda n: n[3], {"n": ""}, "refuses the fields: IndexError"),
    ],
)
def test_what_is_not_read_back_is_refused(
    parse: Callable[..., Any], encode: Callable[..., Any], fields: dict[str, Any], message: str
) -> None:
    """A payload that its own parse rejects, or reads otherwise, is an error that shows both."""
    with pytest.raises(UsageError, match=message):
        one(parse, encode).build_input("e", **fields)


def test_what_does_not_fit_its_type_when_it_is_read_is_refused() -> None:
    """The engine would reject the input: the fields of an op are checked with their types, too."""
    app = App("x", magic=b"x")
    app.add(b"a", parse=lambda _: {"n": 300}, encode=lambda: b"", fields={"n": Integer(0, 255)})
    assert "rejects: field 'n': out of range" in refused(lambda: app.build_input("a"))


def test_fields_agree_as_they_are_stored() -> None:
    """Bytes are hex, a tuple is a list, and an op may keep only the length of a list."""
    app = one(lambda payload: {"b": payload.hex(), "t": [1, 2], "l": 3}, lambda b, t, l, rest: b)  # noqa: E741 - a field
    assert app.build_input("e", b=b"\1", t=(1, 2), l=[4, 5, 6], rest=object()) == b"one\1"


def test_a_long_payload_is_refused() -> None:
    """The app's own limit counts after magic and opcode."""
    app = one(lambda payload: {"n": len(payload)}, lambda n: b"x" * n, max_payload=3)
    assert len(app.build_input("e", n=3)) == 6
    assert "a payload of 4 bytes; the app takes 3" in refused(lambda: app.build_input("e", n=4))


def test_parse_sees_a_signed_transaction_that_pays_somebody() -> None:
    """Outputs and sender are those that are passed; by default, two people are paid by another one."""
    seen: list[Any] = []

    def parse(payload: bytes, senders: Any, inputs: Any, outputs: Any, fee: int) -> Any:
        seen.append((senders, inputs, outputs, fee))
        burned = sum(output["value"] for output in outputs if output["script_pubkey"] == BURNED.hex())
        return {"burned": burned} if burned else Rejected("nothing burned")

    app = one(parse, lambda: b"", needs=("height",))
    assert "nothing burned; if parse looks at outputs or sender" in refused(lambda: app.build_input("e"))
    ((sender,), (spending,), outputs, _) = seen[-1]
    assert [output["type"] for output in outputs] == ["nulldata", "pubkeyhash", "pubkeyhash"]
    assert sender["sighash"] == ["ALL"]
    assert sender["public_keys"][0] in spending["script_sig"]
    assert {"height", "coinbase"} < set(sender)
    assert app.build_input("e", outputs=[(500, BURNED)], sender=b"\0\x14" + bytes(20)) == b"one"
    ((sender,), _, outputs, _) = seen[-1]
    assert [output["value"] for output in outputs] == [0, 500]
    assert sender["type"] == "witness_v0_keyhash"


@pytest.mark.parametrize(
    "ask", [lambda state: state.one("SELECT 1"), lambda state: state["k"], lambda state: 1 in state]
)
def test_a_parse_that_asks_the_state_is_left_to_the_deployment(ask: Callable[[Any], Any]) -> None:
    """There is no state here; what is written is returned as it is."""
    app = one(lambda payload, state: {"n": ask(state)}, lambda n: bytes([n]))
    assert app.build_input("e", n=3) == b"one\3"


def test_of_several_magics_the_one_counts_that_is_read_back() -> None:
    """If one magic is the beginning of another, a payload could mean another opcode."""
    app = App("x", magic=(b"a", b"ab"))
    for code in (b"b", b"c"):
        app.add(code, parse=lambda payload: {"rest": payload.hex()}, encode=lambda rest: rest)
    assert app.build_input("c", rest=b"1") == b"ac1"
    assert app.build_input("b", rest=b"c") == b"abc"
    app = App("x", magic=(b"a", b"b"))
    app.add(b"a", parse=lambda payload: {"rest": payload.hex()}, encode=lambda rest: rest)
    assert app.build_input("a", rest=b"") == b"aa"


def test_payloads_without_opcodes_have_one_handler() -> None:
    """It needs no name, and may be called by that of its class."""
    app = App("letters", magic=b"", opcodes=None, payload_rule=runestone)

    @app.opcode()
    class Letter:
        def parse(self, payload: bytes) -> Any:
            return {"text": payload.decode()}

        def encode(self, text: str) -> bytes:
            return text.encode()

    assert app.build_input(text="hi") == app.build_input("letter", text="hi") == b"hi"
    assert app.build_output(b"hi") == b"\x6a\x5dhi"
    assert Letter.__name__ == "Letter"


def test_an_output_is_written_as_the_rule_finds_it() -> None:
    """The default is one push after OP_RETURN, in its shortest form."""
    payload = notary.build_input("claim", sha256=DOCUMENT)
    assert notary.build_output(payload) == b"\x6a\x23" + payload
    long = bytes(300)
    plain = one(lambda payload: {"n": payload.hex()}, lambda n: n, magic=b"", opcodes=None)
    assert plain.build_output(long) == b"\x6a\x4d\x2c\x01" + long
    app = one(lambda payload: {"n": payload.hex()}, lambda n: n, payload_rule=first_op_return(b"on"))
    assert app.build_output(b"one") == b"\x6a\x03one"
    assert "and finds nothing" in refused(lambda: app.build_output(b"two"))
    assert "and finds nothing" in refused(lambda: plain.build_input(n=b""))


def test_envelopes_are_not_outputs() -> None:
    """Their payloads can be built, and no output carries them."""
    app = one(
        lambda payload: {"n": payload.hex()},
        lambda n: n,
        magic=b"",
        opcodes=None,
        payload_rule=envelopes(b"t"),
    )
    assert app.build_input(n=b"\0\1a") == b"\0\1a"
    assert "envelopes:74 does not say how an output carries" in refused(lambda: app.build_output(b"\0\1a"))


def test_a_rule_of_the_app_s_own_may_write() -> None:
    """What its attribute `write` writes must be found; the attribute is in no identity."""

    def find(outputs: Any) -> bytes | None:
        scripts = [bytes.fromhex(output["script_pubkey"]) for output in outputs]
        return next((script[1:] for script in scripts if script[:1] == b"\x6a"), None)

    app = one(lambda payload: {"n": payload.hex()}, lambda n: n, payload_rule=find)
    before = read_contract(app).fingerprint(), read_contract(app).code_digest()
    assert app.build_input("e", n=b"1") == b"one1"
    assert "needs an attribute write" in refused(lambda: app.build_output(b"one1"))
    find.write = lambda payload: b"\x6a" + payload  # type: ignore[attr-defined]
    assert app.build_output(b"one1") == b"\x6aone1"
    assert (read_contract(app).fingerprint(), read_contract(app).code_digest()) == before
    find.write = lambda payload: b"\x6a\x00" + payload  # type: ignore[attr-defined]
    assert "writes 6f6e6531 as 6a006f6e6531, and finds 006f6e6531" in refused(
        lambda: app.build_input("e", n=b"1")
    )
    find.write = lambda payload: None  # type: ignore[attr-defined]
    assert "fails for 6f6e6531 with TypeError" in refused(lambda: app.build_output(b"one1"))


class Published:
    """An app with the published callbacks."""

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return "published"

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "1"

    def get_first_block_id(self) -> int:
        """Return the genesis block's height."""
        return 0

    def get_magic_bytes(self) -> bytes:
        """Return the magic."""
        return b"pu"

    def get_opcodes(self) -> bytes:
        """Return two opcodes."""
        return b"ab"

    def db_parse(self, block_id: Any, opcode: bytes, op_payload: bytes, *_: Any) -> Any:
        """Read text."""
        return {"text": op_payload.decode(), "at": block_id}

    def db_check(self, *_: Any) -> bool:
        """Look at the class as a whole."""
        return self.__class__ is super().__class__ or True

    def db_commit(self, *_: Any) -> None:
        """Keep nothing."""
        return


class Writing(Published):
    """The same, with an encoder."""

    def db_encode(self, opcode: bytes, text: str, block_id: int) -> bytes:
        """Write text."""
        return (text if opcode == b"a" else text.upper()).encode()


class WritingEngine(Writing, StateEngine):
    """The same as an engine."""


@pytest.mark.parametrize("app", [Writing, Writing(), WritingEngine])
def test_apps_with_callbacks_write_with_db_encode(app: object) -> None:
    """A class, an object and a subclass of the engine; fields are passed by name after the opcode."""
    assert build_input(app, "a", text="x", block_id=7) == b"puax"
    assert build_output(app, b"puax") == b"\x6a\x04puax"
    assert "it takes text, block_id; unknown: words" in refused(lambda: build_input(app, "a", words=1))
    assert "field 'text' is 'x'" in refused(lambda: build_input(app, b"b", text="x"))
    assert "db_encode(opcode, **fields)" in refused(lambda: build_input(Published, "a"))


Encoder = Callable[..., bytes]
READERS: list[Encoder] = [lambda _, sha256: bytes.fromhex(sha256), lambda _, sha256: sha256[:1]]


def claims(with_encode: Encoder | None, *, parse_calls_it: bool = False) -> App:
    """Make an app whose check looks at its handler's class as a whole."""
    app = App("claims", magic=b"cl")

    class Claim:
        def parse(self, payload: bytes) -> Any:
            return {"sha256": payload.hex()}

        def check(self, op: Any, state: Any) -> bool:
            return isinstance(self, __class__)  # type: ignore[name-defined]

    if parse_calls_it:
        Claim.parse = lambda self, payload: self.encode(payload.hex())  # type: ignore[method-assign,attr-defined]
    if with_encode is not None:
        Claim.encode = with_encode  # type: ignore[attr-defined]
    app.opcode(b"c", fields={"sha256": Hex(32)})(Claim)
    return app


def identity(app: object) -> tuple[str, str]:
    """Return what a deployment knows of an app."""
    contract = read_contract(app)
    return contract.fingerprint(), contract.code_digest()


def test_encode_is_in_no_identity() -> None:
    """It decides nothing: with it and without, an app has the same fingerprint and code digest."""
    assert len({identity(claims(encode)) for encode in (None, *READERS)}) == 1


def test_an_encoder_that_parse_calls_is_in_the_identity() -> None:
    """Then it decides what an input says."""
    assert len({identity(claims(encode, parse_calls_it=True)) for encode in READERS}) == 2


def test_db_encode_is_in_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is that of a class, even if a callback looks at the class as a whole."""
    before = identity(Published)
    monkeypatch.setattr(Published, "db_encode", READERS[0], raising=False)
    assert identity(Published) == before


def test_encoders_that_cannot_be_called_are_refused() -> None:
    """Fields are passed by name, and two names are those of `build_input` itself."""
    app = App("x", magic=b"x")
    parse = {"parse": lambda payload: {"n": payload.hex()}}
    for encode, message in [
        (b"x", "it must be a function"),
        (lambda n, /: n, "n cannot be passed by name"),
        (lambda *n: n, "n cannot be passed by name"),
        (lambda sender: sender, "sender is not a field's name"),
    ]:
        with pytest.raises(InvalidApp, match=message):
            app.add(b"a", encode=encode, **parse)  # type: ignore[arg-type]
    with pytest.raises(InvalidApp, match="have nothing to encode"):
        app.spend(type("Spend", (), {"parse": lambda _, payload: payload, "encode": lambda _: b""}))
    with pytest.raises(InvalidApp, match=r"has encod, which is none of .*did you mean encode\?"):
        app.opcode(b"a")(type("A", (), {**parse, "encod": lambda _: b""}))
    with pytest.raises(InvalidApp, match="has no signature"):
        app.add(b"a", encode=bytes, **parse)  # type: ignore[arg-type]
