"""The look at the code of callbacks: what it finds, by whatever name, and what it leaves alone."""

import linecache
import re
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest

from virtualchain import App
from virtualchain.app.declarations import read_contract
from virtualchain.app.lint.look import look, require_no_mistake
from virtualchain.app.lint.rules import RULES
from virtualchain.errors import InvalidApp

Anchors = Callable[..., list[str]]

WRONG = {
    "a builtin that was imported by name": ("from time import time as now", "now()", "clock"),
    "a function that is passed on": ("import time", "sorted([], key=time.time)", "clock"),
    "an import inside of the function": ("", "__import__; import time; time.time()", "clock"),
    "a name imported inside of it": ("", "from time import monotonic; monotonic()", "clock"),
    "a time without an argument": ("import time", "time.gmtime()", "clock"),
    "a method of a class in C": ("from datetime import datetime, UTC", "datetime.now(UTC)", "clock"),
    "that of a class which inherits it": (
        "import datetime\nclass Day(datetime.date): pass",
        "Day.today()",
        "clock",
    ),
    "a method of a new object": ("from pathlib import Path", "Path('x').read_text()", "files"),
    "a helper": ("import random\ndef dice(): return random.random()", "dice()", "randomness"),
    "a helper's helper": (
        "import os\ndef a(): return os.getenv('A')\ndef b(): return a()",
        "b()",
        "environment",
    ),
    "a method that the handler calls": (
        "import time\nclass Clock:\n    def read(self): return time.time()\nclock = Clock()",
        "clock.read()",
        "clock",
    ),
    "a closure": (
        "import time\ndef make(read):\n    return lambda: read()\nnow = make(time.time)",
        "now()",
        "clock",
    ),
    "a default": ("import time\ndef now(read=time.time): return read()", "now()", "clock"),
    "a module by another name": ("import random as r", "r.choice([1])", "randomness"),
    "a module as a value": ("import random", "[random][0].choice([1])", "randomness"),
    "a class of a module": ("import random", "random.Random(1).random()", "randomness"),
    "the environment": ("import os", "os.environ['A']", "environment"),
    "an attribute of a module in a package": ("import os", "os.path.exists('a')", "files"),
    "hash": ("", "hash('a')", "hash"),
    "a set of a module": ("NAMES = {'a', 'b'}", "[x for x in NAMES]", "set-order"),
    "a set that is a parameter": ("def f(x: set[str]): return list(x)", "f({'a'})", "set-order"),
    "a set in a variable": ("", "x = set('ab')\n    y = x | {'c'}\n    tuple(y)", "set-order"),
    "an element of a set": ("", "x = set('ab')\n    x.pop()", "set-order"),
    "a loop over a set": ("", "for x in {'a', 'b'}: pass", "set-order"),
    "a text of a set": ("", "','.join({'a', 'b'})", "set-order"),
    "a global name": ("n = 0", "global n; n = 1", "state"),
    "a dict of a module": ("seen = {}", "seen['a'] = 1", "state"),
    "a list in a dict of a module": ("seen = {'a': []}\nfirst = seen['a']", "first.append(1)", "state"),
    "an iterator of a module": ("import itertools\nnumbers = itertools.count()", "next(numbers)", "state"),
    "an attribute of a class": ("class A:\n    n = 0", "A.n += 1", "state"),
    "a zone that is taken from the machine": ("", "op = {}; op['at'].astimezone()", "time-zone"),
    "the seconds of a time without a zone": (
        "from datetime import datetime",
        "datetime(2020, 1, 1).timestamp()",
        "time-zone",
    ),
    "the version of Python": ("import sys", "sys.version_info >= (3, 12)", "environment"),
    "the length of what was compressed": ("import zlib", "len(zlib.compress(b''))", "native-code"),
    "code of a stranger": ("", "eval(payload)", "foreign-code"),
    "the hash of text, as a method": ("", "payload.__hash__()", "hash"),
    "a dict of a set": ("", "dict.fromkeys(set('ab'))", "set-order"),
    "a set as text": ("", "f\"{set('ab')}\"; str({'a', 'b'})", "set-order"),
    "a set that is reduced": (
        "from functools import reduce",
        "reduce(lambda a, b: a + b, set('ab'))",
        "set-order",
    ),
    "a set that is mapped": ("", "list(map(str.upper, {'a', 'b'}))", "set-order"),
    "a set that a helper returns": ("def words(x): return set(x)", "list(words('ab'))", "set-order"),
    "a default that is filled": ("def f(seen=[]): seen.append(1)", "f()", "state"),
    "an attribute by its name": ("class A: pass\na = A()", "setattr(a, 'n', 1)", "state"),
    "a context": ("from contextvars import ContextVar\nlast = ContextVar('last')", "last.set(1)", "state"),
    "an answer that is remembered": (
        "import functools\n@functools.cache\ndef f(state): return state.one('SELECT 1')",
        "state = None\n    f(state)",
        "state",
    ),
    "a value in a statement": ("", "op = {}; state.one(f\"SELECT {op['a']}\")", "injection"),
    "a value that is formatted": ("", "op = {}; state.one('SELECT {}'.format(op['a']))", "injection"),
    "a value after a percent sign": ("", "op = {}; state.execute('SELECT %s' % op['a'])", "injection"),
    "a function with arguments": (
        "import functools, time\nnow = functools.partial(time.time)",
        "now()",
        "clock",
    ),
    "a method that is asked for by name": (
        "from datetime import datetime",
        "getattr(datetime, 'now')()",
        "clock",
    ),
    "a form without a time": ("import time", "time.strftime('%Y')", "clock"),
    "the zone of the machine by a method": (
        "from datetime import UTC, datetime",
        "datetime.fromtimestamp(1, UTC).astimezone()",
        "time-zone",
    ),
    "the name of the zone": ("import time", "time.tzname[0]", "time-zone"),
    "the data of zones": ("from zoneinfo import ZoneInfo\nzone = ZoneInfo('UTC')", "repr(zone)", "time-zone"),
    "a generator with a seed": ("from random import Random\ndice = Random(1)", "dice.random()", "randomness"),
    "a file of a package": ("import pkgutil", "pkgutil.get_data('email', '__init__.py')", "files"),
    "the root of a number": ("", "len(payload) ** 0.5", "floats"),
    "a power with a fraction": ("", "pow(len(payload), 1 / 3)", "floats"),
    "ties between elements of a set": ("", "max(set(payload.split()), key=len)", "set-order"),
    "what sorting leaves in the order of a set": ("", "sorted({'a', 'b'}, key=len)", "set-order"),
    "elements in a list": ("", "[*{'a', 'b'}]", "set-order"),
    "elements that are assigned": ("", "a, *b = {'a', 'b'}", "set-order"),
    "elements that are added": ("", "x = []\n    x.extend({'a', 'b'})", "set-order"),
    "a set of keys": ("", "a = {}\n    [x for x in a.keys() & {'b'}]", "set-order"),
    "a generator of a module": ("numbers = iter([1, 2])", "list(numbers)", "state"),
    "a method of such a generator": ("numbers = (x for x in [1])", "numbers.send(None)", "state"),
    "an item that is deleted": ("seen = {}", "del seen['a']", "state"),
}
RIGHT = {
    "a local name that looks like a module": ("import time", "time = {}\n    time.get('time')", ""),
    "the time of a number": ("import time", "time.gmtime(1)", ""),
    "a form of a time": ("import time", "time.strftime('%Y', time.gmtime(1))", ""),
    "a generator of the function": ("", "numbers = iter([1])\n    next(numbers)", ""),
    "what a module has of another one": (
        "from urllib.parse import quote, urlparse\nimport urllib.request",
        "urlparse(quote('a'))",
        "",
    ),
    "an open file as a value": ("import sys\nfile = sys.stderr", "print('a', file=file)", ""),
    "powers of whole numbers": ("", "len(payload) ** 2; pow(2, 3, 5); 2 ** len(payload)", ""),
    "what depends on no order": ("S = {'a', 'b'}", "max(S); sorted(S, reverse=True); [*sorted(S)]", ""),
    "a time with a zone": (
        "from datetime import UTC, datetime",
        "datetime.fromtimestamp(1, UTC); datetime.fromtimestamp(1, tz=UTC)",
        "",
    ),
    "a path that is not opened": ("from pathlib import Path", "Path('x').parent / 'y'", ""),
    "mathematics with whole numbers": ("import math", "math.isqrt(4); math.gcd(1, 2); math.sqrt(4)", ""),
    "a lock": ("import threading\nlock = threading.Lock()", "with lock: pass", ""),
    "the hash of an object of the app's": (
        "class A:\n    def __hash__(self): return hash('a')",
        "A()",
        "",
    ),
    "a set that is sorted, counted or asked": (
        "S = {'a', 'b'}",
        "sorted(S); len(S); 'a' in S; sorted(x for x in S); {x for x in S}; sum(1 for x in S)",
        "",
    ),
    "the longest of a sorted set, and a key that tells all apart": (
        "S = {'a', 'b'}",
        "max(sorted(S), key=len); sorted(S, key=lambda x: (len(x), x))",
        "",
    ),
    "times with a zone, and the year of one": (
        "from datetime import UTC, datetime\nimport time",
        "datetime(1, 1, 1, tzinfo=UTC).timestamp(); x.astimezone(UTC); time.strftime('%Y', time.gmtime(1))",
        "",
    ),
    "a name of a table in a statement": (
        "TABLE = 'words'\nT = {'a': 'words'}",
        "state.one(f\"SELECT FROM {TABLE}\", [payload]); state.query('SELECT ' + T['a'])",
        "",
    ),
    "a default that is only read, or bound again": (
        "def f(names=['a'], found=[]):\n    found = list(found)\n    found.append(1)\n    return names[0]",
        "f()",
        "",
    ),
    "what was compressed elsewhere": ("import zlib", "zlib.decompress(payload)", ""),
    "a set of numbers": ("S = {1, 2}", "[x for x in S]", ""),
    "a local dict": ("", "x = {}\n    x['a'] = 1\n    x.update(b=2)", ""),
    "an attribute of a new object": ("class A: pass", "a = A()\n    a.n = 1", ""),
    "what a function remembers": (
        "import functools\n@functools.cache\ndef f(x): return x",
        "f(1)",
        "",
    ),
    "libraries that depend on values alone": (
        "import hashlib, json, re, decimal",
        "hashlib.sha256(b'').hexdigest(); json.loads('{}'); re.match('a', 'a'); decimal.Decimal(1)",
        "",
    ),
    "logging and print": ("import logging\nlog = logging.getLogger('x')", "log.info('a'); print('a')", ""),
    "an annotation": ("from pathlib import Path", "x: 'Path | None' = None", ""),
}


@pytest.fixture
def anchors(tmp_path: Path) -> Iterator[Anchors]:
    """Return a function that looks at a callback and returns the sections of what it finds."""
    names = (f"looked_at_{number}" for number in count())

    def find(head: str, body: str) -> list[str]:
        return [
            finding.rule.anchor for finding in look(read_contract(app_of(tmp_path, next(names), head, body)))
        ]

    yield find
    for name in [name for name in sys.modules if name.startswith("looked_at_")]:
        del sys.modules[name]


def app_of(folder: Path, name: str, head: str, body: str) -> App:
    """Return an app whose parse has this body."""
    file = folder / f"{name}.py"
    file.write_text(f"{head}\ndef parse(payload):\n    {body}\n    return {{}}\n")
    linecache.checkcache(str(file))
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(file)
    exec(compile(file.read_text(), str(file), "exec"), vars(module))
    app = App("looked_at", magic=b"la")
    app.add(b"a", parse=vars(module)["parse"])
    return app


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_seen(anchors: Anchors, case: str) -> None:
    """A name is followed to what it stands for."""
    head, body, anchor = WRONG[case]
    assert set(anchors(head, body)) == {anchor}


@pytest.mark.parametrize("case", RIGHT)
def test_what_is_right_is_left_alone(anchors: Anchors, case: str) -> None:
    """What looks like a mistake, and is none, is not reported."""
    assert anchors(*RIGHT[case][:2]) == []


def test_the_error_names_every_line(tmp_path: Path) -> None:
    """The first mistake is described, and the places of the others are listed."""
    app = app_of(tmp_path, "looked_at_all", "import time", "time.time()\n    time.time()")
    try:
        with pytest.raises(InvalidApp) as raised:
            require_no_mistake(read_contract(app))
    finally:
        del sys.modules["looked_at_all"]
    file = re.escape(str(tmp_path / "looked_at_all.py"))
    pattern = f"app looked_at: {file}, line 3, in parse: time.time\\(\\) .*; see also {file}, line 4"
    assert re.fullmatch(pattern, str(raised.value))


def test_an_attribute_of_a_handler_is_state_outside_of_the_tables() -> None:
    """An app with tables has no other state; one with a state of its own may have it anywhere."""
    app = App("counting", magic=b"co")

    @app.opcode(b"c")
    class Count:
        total = 0

        def parse(self, payload: bytes) -> dict[str, int]:
            self.total += 1
            return {"total": self.total}

    (finding,) = look(read_contract(app))
    assert finding.rule.anchor == "state"
    assert finding.what == "changing self.total"


def test_callbacks_that_decide_nothing_are_not_looked_at() -> None:
    """An encoder may use random numbers."""
    app = App("encoding", magic=b"en")

    def encode() -> bytes:
        import random

        return random.randbytes(1)

    app.add(b"e", parse=lambda _: {}, encode=encode)
    assert look(read_contract(app)) == []


def test_no_name_is_in_two_rules() -> None:
    """The first rule that fits would hide the other."""
    names = [name for rule in RULES for name in (*rule.names, *rule.methods)]
    assert sorted(names) == sorted(set(names))
