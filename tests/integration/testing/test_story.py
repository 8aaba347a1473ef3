"""`scenario`: what a story can tell, what its expectations find, and what its author may get wrong."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict
from unittest.mock import ANY

import psycopg
import pytest

from tests.support.rides import rides_app
from tests.support.snippets import snippets
from tests.support.tables import deployment
from virtualchain import App, Rejected, State
from virtualchain.errors import AppHalted, UsageError
from virtualchain.examples import notary
from virtualchain.testing import ReplayDiffers, Story, Unexpected, key, scenario
from virtualchain.testing.database import DatabaseServer

DOCUMENT = "aa" * 32
WORDS = "CREATE TABLE words (word text PRIMARY KEY, number bigint, data bytea, body jsonb, flag boolean)"


class Word(TypedDict):
    """A part of a row."""

    word: str


def an_app(commit: Callable[..., Any] | None = None, **declared: Any) -> App:
    """Make an app that keeps words, and rejects what begins with `no`."""

    def check(op: dict[str, Any], state: State) -> bool | Rejected:
        return not op["word"].startswith("no") or Rejected(f"we do not take {op['word']}")

    def keep(op: dict[str, Any], state: State, block_id: int) -> None:
        row = {"word": op["word"], "number": block_id, "data": op["word"].encode(), "flag": True}
        state.execute(
            "INSERT INTO words VALUES (%(word)s, %(number)s, %(data)s, NULL, %(flag)s) ON CONFLICT (word) "
            "DO UPDATE SET number = EXCLUDED.number",
            row,
        )
        if commit is not None:
            commit(op, state)

    app = App("words", **{"magic": b"wd", "projections": WORDS, **declared})
    app.add(
        b"o",
        parse=lambda payload: {"word": payload.decode()},
        check=check,
        commit=keep,
        encode=lambda word: word.encode(),
    )
    return app


def test_a_story_with_forks(database_url: str) -> None:
    """Shorter and longer branches win, dropped inputs are gone, and the same transaction is mined again."""
    with scenario(notary.app, database_url) as story:
        alice, bob, carol = map(story.address, ("alice", "bob", "carol"))
        claim = story.send("claim", sha256=DOCUMENT, sender="alice")
        assert story.block(claim, story.send("claim", sha256=DOCUMENT, sender="bob")) == 102
        story.expect(
            rows={"documents": [{"sha256": DOCUMENT, "owner": alice, "claimed_at": 102, "txid": claim.txid}]},
            ops=[{"opcode": "claim", "sha256": DOCUMENT, "sender": alice}],
            rejections=[("check", "claimed in block 102")],
        )
        first = story.consensus_hash()
        story.mine(3)
        story.fork(4, [story.send("claim", sha256=DOCUMENT, sender="bob"), claim])
        assert story.height == 102
        story.expect(rows={"documents": [{"owner": bob}]}, ops=[{"opcode": b"c"}])
        assert story.consensus_hash() != first
        story.block(story.send("transfer", sha256=DOCUMENT, sender="bob", to=[("carol", 1_000)]))
        story.fork(1, [], [story.send(b"ntr" + bytes.fromhex(DOCUMENT), sender="bob")])
        story.expect(rows={"documents": [{"owner": bob, "revoked": True}]})
        story.fork(3, [claim], [story.send("t", sha256=DOCUMENT, to=[(key("carol", "p2tr"), 700)])])
        story.expect(
            rows={"documents": [{"owner": story.address("carol", "p2tr"), "revoked": False}]},
            ops=[{"opcode": "claim"}, {"opcode": "transfer", "recipient": ANY}],
            rejections=[],
            consensus_hash=story.consensus_hash(),
            state_hash=story.state_hash(),
        )
        assert carol != story.address("carol", "p2tr")


def test_the_example_of_the_page(database_url: str) -> None:
    """The first example of docs/testing.md passes as it stands there."""
    example = next(each for each in snippets("python") if each.page == "docs/testing.md")
    names: dict[str, Any] = {}
    exec(compile(example.text, str(example), "exec"), names)
    names["test_the_first_claim_wins"](database_url)


def test_a_restart_and_a_bare_transaction(database_url: str) -> None:
    """The engine begins again in the middle; what is not an input of the app passes by."""
    with scenario(notary.app, database_url) as story:
        story.block(story.send("claim", sha256=DOCUMENT), story.node.send(b"somebody else's"))
        story.restart()
        story.block(story.send(None, to=[("bob", 500)]))
        story.expect(ops=[{"opcode": "claim"}], rejections=[])


def test_queries_with_declared_rows(database_url: str) -> None:
    """What watches the statements of a story passes the type of their rows on."""

    def ask(op: dict[str, Any], state: State) -> None:
        op["all"] = len(state.query("SELECT word FROM words", [], Word))
        op["word"] = (state.one("SELECT word FROM words WHERE word = %s", [op["word"]], row=Word) or op)[
            "word"
        ]

    with scenario(an_app(ask), database_url) as story:
        story.block(story.send("o", word="a"), story.send("o", word="b"))
        story.expect(ops=[{"word": "a", "all": 1}, {"word": "b", "all": 2}])


def test_several_apps_with_heights_and_confirmations(database_url: str) -> None:
    """Each app has its expectations by name; the chain begins where the last of them does."""
    first = an_app(first_block_id=110, confirmations=3)
    other = App("others", magic=b"xx", first_block_id={"mainnet": 800_000, "regtest": 120})
    high = App("high", magic=b"hi", first_block_id=800_000)
    high.add(b"o", parse=lambda payload: {"size": len(payload)})
    other.add(b"o", parse=lambda payload: {"size": len(payload)})
    with scenario(first, other, high, database_url=database_url, confirmations=1) as story:
        assert story.block(story.send("o", word="hi", app="words"), story.send(b"xxo123")) == 120
        story.expect("words", ops=[], rows={"words": []})
        story.mine()
        story.expect("words", ops=[{"opcode": "o", "word": "hi"}])
        story.expect("others", ops=[{"size": 3}])
        with pytest.raises(UsageError, match="name one of the apps words, others, high: app="):
            story.expect(ops=[])
        with pytest.raises(UsageError, match="no app word: there is words, others, high"):
            story.consensus_hash(app="word")


def test_an_app_that_begins_too_high_and_one_whose_rules_change(database_url: str) -> None:
    """It begins with the chain; rules come into force at their height."""
    app = an_app(first_block_id=840_000, confirmations=6)

    @app.opcode(b"o", fields=["word"], from_block=104)
    class Louder:
        def parse(self, payload: bytes) -> dict[str, str]:
            return {"word": payload.decode().upper()}

    with scenario(app, database_url) as story:
        story.block(story.send(b"wdosoft"))
        story.mine()
        story.block(story.send(b"wdoloud"))
        story.expect(ops=[{"word": "soft"}, {"word": "LOUD"}])


def test_fresh_hashes(database_url: str) -> None:
    """An encoder gets the last hash; an old one, and that of another branch, are rejected by the app."""
    app = App("letters", magic=b"lt", valid_transaction_window=3)
    app.add(
        b"w",
        parse=lambda payload: {"seen": payload[:16].hex(), "text": payload[16:].decode()},
        encode=lambda consensus_hash, text: bytes.fromhex(consensus_hash) + text.encode(),
        requires_fresh_hash="seen",
        fields=["seen", "text"],
    )
    with scenario(app, database_url) as story:
        story.mine()
        old = story.consensus_hash()
        story.mine(4)
        story.block(story.send("w", text="new"), story.send("w", text="old", consensus_hash=old))
        story.expect(ops=[{"text": "new"}], rejections=[("check", ANY)])
        with pytest.raises(UsageError, match="app letters has no consensus hash at block 999"):
            story.consensus_hash(999)


def test_outputs_that_an_app_tracks(database_url: str) -> None:
    """A later transaction spends an output of an earlier one, with and without a payload."""
    with scenario(rides_app(), database_url) as story:
        mint = story.send(b"rim7", to=[("bob", 5_000)])
        story.block(mint)
        move = story.send(None, spends=(mint, 1), to=[("carol", 3_000)])
        story.block(move)
        story.expect(rows={"rides": [{"txid": move.txid, "vout": 0, "amount": 7}]})
        again = story.send(b"rim5", sender="dave", spends=[(move, 0)], to=[("erin", 800)])
        story.block(again)
        story.expect(rows={"rides": [{"txid": again.txid, "amount": 12}]})
        with pytest.raises(UsageError, match="has the outputs 0 to 1, not 9"):
            story.send(None, spends=(move, 9))
        with pytest.raises(UsageError, match=r"output 0 of b'rim7' by alice belongs to nobody who sent"):
            story.send(None, spends=(mint, 0))


def test_funds_and_many_inputs(database_url: str) -> None:
    """Several senders pay one transaction, and many transactions of one sender do not need each other."""
    with scenario(an_app(), database_url, replays=False) as story:
        story.block(*(story.send("o", word=f"w{number}") for number in range(10)))
        alone = story.send("o", word="alone")
        together = story.send("o", word="together", sender=["bob", key("carol", "p2pkh")], fee=5_000)
        story.fork(1, [alone, together])
        story.expect(rows={"words": [{"word": "alone"}, {"word": "together"}]})


def differs(story: Story, **expected: Any) -> str:
    """Return what is shown if an expectation does not hold."""
    with pytest.raises(Unexpected) as raised:
        story.expect(**expected)
    return str(raised.value)


def test_what_a_failed_expectation_shows(database_url: str) -> None:
    """Rows are paired by key, lists in order; what differs, is missing or is extra is named."""
    with scenario(an_app(), database_url) as story:
        story.block(story.send("o", word="one"), story.send("o", word="no, never", sender="bob"))
        story.block(story.send("o", word="two"))
        message = differs(
            story,
            rows={"words": [{"word": "one", "number": 7}, {"word": "three"}]},
            ops=[{"opcode": "o", "word": "one"}, {"word": "zwei", "wrd": 1}, {"word": "three"}],
            rejections=[("check", "no"), ("parse", "why")],
            consensus_hash="00" * 16,
        )
        assert message.splitlines() == [
            "app words is not as expected after block 103:",
            "",
            "table words has 2 rows, expected 2:",
            "  differs: word='one'",
            "    number is 102, expected 7",
            "  missing: word='three'",
            "  extra: word='two' number=103",
            "ops: 2, expected 3:",
            "  1. o word='one' (block 102)",
            "  2. o word='two' (block 103)",
            "       word is 'two', expected 'zwei'",
            "       wrd is none of its fields (word), expected 1",
            "  3. missing: word='three'",
            "rejections: 1, expected 2:",
            "  1. in check: we do not take no, never (block 102, o word='no, never' by bob)",
            "       reason is 'we do not take no, never', expected 'no'",
            "  2. missing: in parse: why",
            f"consensus_hash: is {story.consensus_hash()}, expected {'00' * 16}",
            "",
            "what led there:",
            "  block 102: o word='one' by alice: accepted",
            "  block 102: o word='no, never' by bob: rejected in check: we do not take no, never",
            "  block 103: o word='two' by alice: accepted",
        ]
        assert "  extra: word='one' number=102 data=b'one' body=None flag=True" in differs(
            story, rows={"words": []}
        )
        assert "  1. extra: o word='one' (block 102)" in differs(story, ops=[{"word": "two"}])
        long = "a" * 900
        story.block(story.send("o", word=f"{long}x{long}"))
        shown = differs(story, ops=[{"word": "one"}, {"word": "two"}, {"word": f"{long}y{long}"}])
        assert (
            f"word is …{'a' * 60}x{'a' * 59}…, expected …{'a' * 60}y{'a' * 59}… (from character 841 on)"
            in shown
        )
        assert "  differs: word='one'\n    flag is True, expected False" in differs(
            story, rows={"words": [{"number": 102, "flag": False}, {"word": "two"}]}
        )


def test_addresses_have_their_names_beside_them(database_url: str) -> None:
    """A row that shows an address says whose it is; opcodes are called like their handlers."""
    with scenario(notary.app, database_url) as story:
        story.block(story.send("claim", sha256=DOCUMENT))
        message = differs(story, rows={"documents": [{"owner": story.address("bob")}]}, ops=[{"opcode": "r"}])
        assert (
            f"owner is '{story.address('alice')} (alice)', expected '{story.address('bob')} (bob)'" in message
        )
        assert "       expected revoke no fields" in message


def sent_twice(story: Story) -> None:
    """Put the same transaction into two blocks."""
    sent = story.send("o", word="x")
    story.block(sent)
    story.block(sent)


MISTAKES: Sequence[tuple[Callable[[Story], object], str]] = [
    (lambda s: s.expect(rows={"word": []}), "app words has no table 'word': its tables are words"),
    (
        lambda s: s.expect(rows={"words": [{"wrd": 1}]}),
        "table words has no column 'wrd': it has word, number",
    ),
    (lambda s: s.expect(rows={"words": {"word": "one"}}), "a row is a dict of its columns, not 'word'"),  # type: ignore[dict-item]
    (lambda s: s.expect(rows={"words": [{"word": b"x"}]}), r"words.word is text: expect text.*\.hex\(\)"),
    (lambda s: s.expect(rows={"words": [{"data": "78"}]}), r"words.data is bytea: expect bytes.*fromhex"),
    (
        lambda s: s.expect(rows={"words": [{"number": "1"}]}),
        "words.number is int8: expect an int, not the str",
    ),
    (lambda s: s.expect(rows={"words": [{"number": True}]}), "expect an int, not the bool True"),
    (lambda s: s.expect(rows={"words": [{"flag": 1}]}), "words.flag is bool: expect True or False"),
    (lambda s: s.expect(), r"expect compares what is passed: rows=\{table: "),
    (lambda s: s.expect(ops=[{"opcode": "claim"}]), "app words has no opcode 'claim'; it has o"),
    (lambda s: s.expect(ops=[{"opcode": 5}]), "an opcode is text or a byte, not 5"),
    (lambda s: s.expect(ops=["o"]), "an op is a dict of its fields"),  # type: ignore[list-item]
    (lambda s: s.expect(rejections=["check"]), "each is a step and a reason"),  # type: ignore[list-item]
    (lambda s: s.expect(rejections=[("chck", "x")]), "the steps are parse, check and commit, not 'chck'"),
    (lambda s: s.send("p", word="x"), "app words has no opcode 'p'; it has o"),
    (lambda s: s.send("o", wrd="x"), "it takes word; unknown: wrd; missing: word"),
    (
        lambda s: s.send(b"xyo"),
        r"b'xyo' is not an input: payloads of words .* b'wd' and one of the opcodes b'o'",
    ),
    (lambda s: s.send(b"wdo", word="x"), "a whole payload has no fields: word"),
    (lambda s: s.send(None, word="x"), "a transaction without an opcode has no fields: word"),
    (
        lambda s: s.send("o", word="x", sender=s.address("bob")),
        "names such as 'alice': bcrt1.* is an address",
    ),
    (lambda s: s.expect(rows={}), r"expect compares what is passed: rows=\{table: "),
    (lambda s: s.send("o", word="x", sender=[]), "a transaction needs a sender"),
    (lambda s: s.send("o", word="x", to=("bob", 5)), r"to takes names with satoshi: .*, not 'bob'"),  # type: ignore[arg-type]
    (lambda s: s.send(None, spends=["x"]), "spends takes outputs as"),  # type: ignore[list-item]
    (lambda s: s.address(""), "people in a story have names such as 'alice': not ''"),
    (lambda s: s.block([]), r"block takes what send returns, not \[\]"),  # type: ignore[arg-type]
    (lambda s: s.fork(1), "fork takes a list of transactions for each new block"),
    (lambda s: s.fork(1, s.send(None)), "fork takes a list of transactions for each new block"),  # type: ignore[arg-type]
    (lambda s: s.fork(9, []), "the story has . blocks so far: the last 9 cannot be replaced"),
    (sent_twice, "o word='x' by alice: transaction .* is spent or not in the chain"),
]


@pytest.fixture(scope="module")
def story_of_words(database_server: DatabaseServer) -> Iterator[Story]:
    """Yield a story that the mistakes share: none but the last one changes it."""
    url = database_server.clone()
    with scenario(an_app(), url) as story:
        with pytest.raises(UsageError, match="nothing has happened yet: mine a block"):
            story.expect(ops=[])
        story.mine()
        yield story
    database_server.drop(url)


@pytest.mark.parametrize(("mistake", "message"), MISTAKES)
def test_mistakes_of_authors(story_of_words: Story, mistake: Callable[[Story], object], message: str) -> None:
    """Each is an error that says what is wrong, and what there is."""
    with pytest.raises(UsageError, match=f"(?s){message}"):
        mistake(story_of_words)


def test_a_field_that_is_named_like_an_argument(database_url: str) -> None:
    """It is passed in `fields`, and the message says so."""
    app = App("gifts", magic=b"gi")
    app.add(b"g", parse=lambda payload: {"to": payload.decode()}, encode=lambda to: to.encode())
    with scenario(app, database_url) as story:
        with pytest.raises(UsageError, match="g has a field 'to', which is also an argument of send"):
            story.send("g", to=[("bob", 1_000)])
        story.block(story.send("g", fields={"to": "bob"}))
        story.expect(ops=[{"to": "bob"}])


def test_an_input_that_parse_rejects_can_be_sent(database_url: str) -> None:
    """The story sends what the encoder writes; the app decides."""
    app = App("picky", magic=b"pi")
    app.add(b"g", parse=lambda payload: Rejected("never"), encode=lambda: b"")
    with scenario(app, database_url) as story:
        story.block(story.send("g"))
        story.expect(rejections=[("parse", "never")])


def test_a_halt_shows_op_line_and_values(database_url: str) -> None:
    """The test ends at the block that halts one of two apps, with the callback's exception as the cause."""

    def commit(op: dict[str, Any], state: State) -> None:
        limit = {"one": 1}
        state.execute("UPDATE words SET number = %s WHERE word = %s", [limit[op["word"]], op["word"]])

    other = App("others", magic=b"xx")
    other.add(b"o", parse=lambda payload: {})
    with scenario(an_app(commit), other, database_url) as story:
        story.block(story.send("o", word="one", app="words"))
        with pytest.raises(AppHalted) as raised:
            story.block(story.send("o", word="two", sender="bob", app="words"))
    message = str(raised.value)
    assert message.startswith("app words halts in block 103: db_commit fails with KeyError: 'two'\n")
    assert "  input: o word='two' by bob (" in message
    assert '  op: o {"word": "two"}' in message
    assert f"{__file__}:" in message
    assert "in commit: state.execute(" in message
    assert "  value: op = {'word': 'two'}" in message
    assert "  value: limit = {'one': 1}" in message
    assert "  last statement: INSERT INTO words" in message
    assert isinstance(raised.value.__cause__, KeyError)


def test_state_outside_the_tables_is_noticed(database_url: str) -> None:
    """After a fork, a replay of the same chain has other rows."""
    seen: list[str] = []

    def commit(op: dict[str, Any], state: State) -> None:
        seen.append(op["word"])
        state.execute("UPDATE words SET number = %s WHERE word = %s", [len(seen), op["word"]])

    with scenario(an_app(commit), database_url, guard=False) as story:
        story.block(story.send("o", word="one"))
        with pytest.raises(
            ReplayDiffers, match="app words is other than in a fresh replay, after block 102"
        ) as it:
            story.fork(1, [story.send("o", word="two", sender="bob")])
        assert "table words, row (two): " in str(it.value)
        assert "not undone with its block when the chain forks" in str(it.value)
        assert isinstance(it.value, AssertionError)


def test_the_end_of_a_story_is_compared(database_url: str) -> None:
    """An app that halts in the replay only is different, too."""
    seen: set[str] = set()

    def commit(op: dict[str, Any], state: State) -> None:
        assert op["word"] not in seen
        seen.add(op["word"])

    def tell() -> None:
        with scenario(an_app(commit), database_url, guard=False) as story:
            story.block(story.send("o", word="one"))

    with pytest.raises(ReplayDiffers, match=r"halts in db_commit: AssertionError.* \(on a fresh replay"):
        tell()


def test_without_replays_nothing_is_compared(database_url: str) -> None:
    """The same app passes, because its author asks for that."""
    seen: list[str] = []

    def commit(op: dict[str, Any], state: State) -> None:
        seen.append(op["word"])
        state.execute("UPDATE words SET number = %s WHERE word = %s", [len(seen), op["word"]])

    with scenario(an_app(commit), database_url, replays=False, guard=False) as story:
        story.block(story.send("o", word="one"))
        story.fork(1, [story.send("o", word="one", sender="bob")])
        story.expect(rows={"words": [{"number": 2}]})


def test_what_a_scenario_needs(database_url: str, database_server: DatabaseServer) -> None:
    """An app, no text in its place, and a database that is new; nothing is left of the copies."""
    before = copies(database_server)
    for arguments in ((), (database_url,), ("words", database_url)):
        with pytest.raises(UsageError, match="scenario takes one or more apps"), scenario(*arguments):
            pytest.fail("there is no app")
    with (
        psycopg.connect(database_url),
        pytest.raises(
            UsageError, match="somebody is connected to that: connect to it inside of the scenario"
        ),
        scenario(an_app(), database_url),
    ):
        pytest.fail("the database cannot be copied")
    with scenario(an_app(), database_url) as story:
        story.mine()
    with pytest.raises(UsageError, match="the scenario has ended"):
        story.mine()
    with (
        pytest.raises(UsageError, match="must be new, but it has block 102"),
        scenario(an_app(), database_url),
    ):
        pytest.fail("the database is not new")
    assert deployment(database_url)["words.words"] == []
    assert copies(database_server) == before


def copies(server: DatabaseServer) -> list[tuple[str]]:
    """List the databases that scenarios have made for replays."""
    with psycopg.connect(server.url) as connection:
        names = connection.execute(
            "SELECT datname FROM pg_database WHERE datname ~ '^(scenario|replay)' ORDER BY 1"
        )
        return names.fetchall()
