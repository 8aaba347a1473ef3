"""What a callback must not reach, because two nodes would not find the same there, and what to write instead.

Each rule is a section of docs/mistakes.md. It names functions, classes and modules of Python's library as
text: nothing is imported here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

PAGE: Final = "docs/mistakes.md"


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of mistake."""

    anchor: str
    """The section of the page."""
    why: str
    """A clause that follows what was done: `time.time is …`."""
    instead: str
    names: tuple[str, ...] = ()
    """What is found where code names it, and when it is called: `module.name`, or all of it: `module.*`."""
    methods: tuple[str, ...] = ()
    """What is found where code names it alone: methods of classes in C, which nothing can replace."""
    events: tuple[str, ...] = ()
    """What Python's audit hooks report when it is done; a name that ends with a dot stands for all below."""

    def complaint(self, what: str) -> str:
        """Write what is wrong, why, what to write instead, and where that is explained."""
        return f"{what.removeprefix('builtins.')} {self.why}: {self.instead} ({PAGE}#{self.anchor})"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CLOCK: Final = Rule(
    "clock",
    "reads the clock, which differs between nodes",
    "use state.block_time, the time of the block",
    names=_words(
        """
        time.asctime time.clock_gettime time.clock_gettime_ns time.ctime time.gmtime time.monotonic
        time.monotonic_ns time.perf_counter time.perf_counter_ns time.process_time time.process_time_ns
        time.sleep time.strftime time.thread_time time.thread_time_ns time.time time.time_ns
        """
    ),
    methods=_words(
        "datetime.date.today datetime.datetime.now datetime.datetime.today datetime.datetime.utcnow"
    ),
    events=_words("time.sleep"),
)
TIME_ZONE: Final = Rule(
    "time-zone",
    "reads the time zone of the machine",
    "compute with seconds, or use datetime.fromtimestamp(seconds, UTC)",
    names=_words(
        """
        time.altzone time.daylight time.localtime time.mktime time.timezone time.tzname time.tzset zoneinfo.*
        """
    ),
    methods=_words("datetime.date.fromtimestamp datetime.datetime.fromtimestamp"),
)
CHANCE: Final = Rule(
    "randomness",
    "is random, or differs between versions of Python",
    "derive a number from the input, such as hashlib.sha256(f'{txid}:{vtxindex}'.encode())",
    names=_words(
        "numpy.random.* os.getrandom os.urandom random.* secrets.* ssl.RAND_bytes uuid.uuid1 uuid.uuid4"
    ),
)
NETWORK: Final = Rule(
    "network",
    "uses the network, which answers each node differently",
    "put what the rules need into the payload, or into the tables by an op of its own",
    names=_words(
        "ftplib.* http.client.* imaplib.* poplib.* smtplib.* socket.* socketserver.* ssl.* urllib.request.* "
        "xmlrpc.client.* aiohttp.* asyncpg.* httpx.* psycopg.connect psycopg2.connect requests.* urllib3.*"
    ),
    events=_words(
        "ftplib. http.client. imaplib. nntplib. poplib. smtplib. socket. telnetlib. urllib. webbrowser."
    ),
)
FILES: Final = Rule(
    "files",
    "uses files, which differ between machines",
    "keep state in a table, and read a constant file at import, outside of functions",
    names=_words(
        """
        builtins.open glob.* io.FileIO io.open io.open_code os.access os.listdir os.lstat os.makedirs
        os.mkdir os.open os.remove os.rename os.replace os.rmdir os.scandir os.stat os.unlink os.walk
        os.path.exists os.path.getatime os.path.getctime os.path.getmtime os.path.getsize os.path.isdir
        os.path.isfile os.path.islink pkgutil.get_data shelve.open shutil.* sqlite3.connect tempfile.*
        """
    ),
    methods=_words(
        """
        pathlib.Path.cwd pathlib.Path.exists pathlib.Path.glob pathlib.Path.home pathlib.Path.is_dir
        pathlib.Path.is_file pathlib.Path.iterdir pathlib.Path.mkdir pathlib.Path.open pathlib.Path.read_bytes
        pathlib.Path.read_text pathlib.Path.stat pathlib.Path.unlink pathlib.Path.write_bytes
        pathlib.Path.write_text
        """
    ),
    events=_words(
        """
        fcntl. glob. mmap. open os.chdir os.chflags os.chmod os.chown os.getxattr os.link os.listdir
        os.listxattr os.lockf os.mkdir os.remove os.removexattr os.rename os.rmdir os.scandir os.setxattr
        os.symlink os.truncate os.utime os.walk os.fwalk pathlib. shutil. sqlite3. tempfile.
        """
    ),
)
ENVIRONMENT: Final = Rule(
    "environment",
    "depends on the process and its machine",
    "write the value into the code; what the rules need is part of the app's version",
    names=_words(
        """
        builtins.input gc.* os.cpu_count os.environ os.environb os.getcwd os.getenv os.getenvb os.getloadavg
        os.getlogin os.getpid os.getppid os.getuid os.uname platform.* resource.* sys.argv sys.flags
        sys.getallocatedblocks sys.getrecursionlimit sys.getrefcount sys.getsizeof sys.hexversion
        sys.implementation sys.modules sys.path sys.platform sys.stdin sys.version sys.version_info
        """
    ),
    events=_words("builtins.input os.putenv os.unsetenv"),
)
LOCALE: Final = Rule(
    "locale",
    "depends on the settings of the machine",
    "format with f-strings, and compare text as it is, or its bytes",
    names=_words("locale.*"),
)
THREADS: Final = Rule(
    "threads",
    "starts something that runs beside the callback, so that the order of events decides",
    "do the work in the callback itself, one step after the other",
    names=_words(
        """
        _thread.start_new_thread asyncio.* concurrent.futures.* multiprocessing.* os.execv os.execve os.fork
        os.forkpty os.kill os.popen os.posix_spawn os.system signal.* subprocess.* threading.Thread
        threading.Timer
        """
    ),
    events=_words(
        """
        _thread. os.exec os.fork os.forkpty os.kill os.posix_spawn os.spawn os.startfile os.system pty.
        signal. subprocess.
        """
    ),
)
NATIVE: Final = Rule(
    "native-code",
    "calls code of the machine, which may be another version on another one",
    "write the rule in Python, or in a package whose version the app's own names",
    names=_words("bz2.compress cffi.* ctypes.* gzip.compress lzma.compress zlib.compress zlib.compressobj"),
    events=_words("ctypes."),
)
FOREIGN_CODE: Final = Rule(
    "foreign-code",
    "runs what it is passed as code, which may be a stranger's",
    "read the payload byte by byte, with struct, or with virtualchain.parse_json",
    names=_words(
        """
        builtins.eval builtins.exec dill.* marshal.load marshal.loads pickle.Unpickler pickle.load
        pickle.loads yaml.load yaml.unsafe_load
        """
    ),
)
HASH: Final = Rule(
    "hash",
    "differs with each process",
    "use hashlib.sha256(text.encode()), or compare the values themselves",
    names=_words("builtins.hash builtins.id"),
)
FLOATS: Final = Rule(
    "floats",
    "has results that differ between machines",
    "use whole numbers of the smallest unit, math.isqrt, Fraction or Decimal",
    names=tuple(
        f"math.{name}"
        for name in _words(
            """
            acos acosh asin asinh atan atan2 atanh cbrt cos cosh erf erfc exp exp2 expm1 gamma hypot lgamma
            log log10 log1p log2 pow sin sinh tan tanh
            """
        )
    )
    + tuple(
        f"numpy.{name}"
        for name in _words(
            """
            arccos arccosh arcsin arcsinh arctan arctan2 arctanh cbrt cos cosh exp exp2 expm1 float_power
            hypot log log10 log1p log2 sin sinh tan tanh
            """
        )
    )
    + _words("cmath.*"),
)
SET_ORDER: Final = Rule(
    "set-order",
    "takes the elements of a set in an order that differs with each process",
    "use sorted(…), or a list or dict instead of the set",
)
INJECTION: Final = Rule(
    "injection",
    "becomes part of the statement, so that its author can change what the statement does",
    "write %s in its place, and pass the value as a parameter",
)
STATE: Final = Rule(
    "state",
    "keeps state outside of the tables, which a restart loses and a rollback does not undo",
    "keep it in a table of the projections (functools.cache is for what follows from plain values alone)",
)

RULES: Final = (
    CLOCK,
    TIME_ZONE,
    CHANCE,
    NETWORK,
    FILES,
    ENVIRONMENT,
    LOCALE,
    THREADS,
    NATIVE,
    FOREIGN_CODE,
    HASH,
    FLOATS,
)
"""Those that are about what code names or does; the first that fits counts."""

NEEDS_ARGUMENTS: Final = MappingProxyType({"time.asctime": 1, "time.gmtime": 1, "time.strftime": 2})
"""What reads the clock only if it is called with fewer arguments: of the code, only such a call is found."""
HARMLESS: Final = frozenset(
    _words(
        """
        ctypes.sizeof socket.AF_INET socket.AF_INET6 socket.htonl socket.htons socket.inet_aton
        socket.inet_ntoa socket.inet_ntop socket.inet_pton socket.ntohl socket.ntohs
        """
    )
)
"""Parts of the modules above that depend on their arguments alone."""


def rule_of_name(name: str) -> Rule | None:
    """Return the rule against something by its full name, such as `time.time`; None if it is allowed."""
    if name in HARMLESS:
        return None
    for rule in RULES:
        if name in rule.names or name in rule.methods or any(map(name.startswith, _all_of(rule))):
            return rule
    return None


def rule_of_event(event: str) -> Rule | None:
    """Return the rule against what an audit event reports; None if it is allowed."""
    for rule in RULES:
        for listed in rule.events:
            if event == listed or (listed.endswith(".") and event.startswith(listed)):
                return rule
    return None


def _all_of(rule: Rule) -> Iterator[str]:
    return (name.removesuffix("*") for name in rule.names if name.endswith(".*"))
