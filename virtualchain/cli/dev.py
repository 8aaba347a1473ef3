"""The command `dev`: an app that is being written, on a chain of its own; the prompt."""

import sys
import threading
from contextlib import ExitStack, suppress
from dataclasses import replace
from io import TextIOWrapper
from typing import TYPE_CHECKING, Final

import click

from virtualchain.cli.options import Command, Options, pass_options
from virtualchain.cli.output import visible, write_json_line, write_table
from virtualchain.cli.serve import port_type
from virtualchain.errors import UsageError

if TYPE_CHECKING:
    from virtualchain.dev.outcomes import Outcome
    from virtualchain.dev.real_node import RealNode
    from virtualchain.dev.session import Session
    from virtualchain.dev.site import Site

_PROMPT: Final = "dev> "
_LOOK: Final = 0.05
"""Seconds between two looks at the files."""


@click.command(cls=Command)
@click.option("--fresh", is_flag=True, help="Begin with a new chain.")
@click.option(
    "--node",
    "kind",
    type=click.Choice(["fake", "bitcoind", "auto"]),
    default="fake",
    show_default=True,
    help="Who serves the chain: a made-up node, a regtest bitcoind of its own, or that if there is one.",
)
@click.option("--port", type=port_type, help="The port of the pages; 0: any free one. Default: 8090.")
@click.option("--no-pages", is_flag=True, help="Show no pages.")
@pass_options
def dev(options: Options, fresh: bool, kind: str, port: int | None, no_pages: bool) -> None:
    """Run an app while you write it, on a throw-away chain.

    The app is loaded again whenever one of its files changes, and derived from the chain's blocks. A prompt
    takes lines such as `send OPCODE FIELD=VALUE`; `help` lists them. They may also come from a file: the
    command ends with the last one, with exit code 1 if one failed. The chain is kept in .virtualchain/dev.

    Of the settings, only the app is used. --database names a PostgreSQL server and, for databases that are
    dropped and made, the beginning of a name: it must end in _dev.
    """
    from virtualchain.dev import process
    from virtualchain.dev.project import Project

    prompt = Prompt(as_json=options.settings.json)
    with ExitStack() as opened:
        project = Project(options.flags)
        opened.callback(project.close)
        process.get_ready(pages=not no_pages)  # it imports what the processes need while this one does
        from virtualchain.dev.chain import Chain
        from virtualchain.dev.databases import Databases, base_url
        from virtualchain.dev.session import Session

        real = _real_node(kind)
        chain = Chain(project.chain, fresh=fresh, real=real)
        opened.callback(chain.close)
        databases = Databases(base_url(options.flags.get("database"), project.name))
        session = Session(project, chain, databases, prompt.show)
        opened.callback(session.close)
        if not no_pages and (site := _site(session, port, prompt)) is not None:
            opened.callback(site.close)
        prompt.show(session.load())
        ended = threading.Event()
        opened.callback(ended.set)
        threading.Thread(target=_watch, args=(session, ended), name="files", daemon=True).start()
        well = prompt.run(session)
    click.get_current_context().exit(int(not well))


def _real_node(kind: str) -> "RealNode | None":
    """Start a bitcoind if one is asked for; raises UsageError if there is none that must be."""
    from virtualchain.dev.real_node import RealNode, find

    program = None if kind == "fake" else find()
    if program is None and kind == "bitcoind":
        raise UsageError(
            "no bitcoind: put it on PATH, or name it in the environment variable BITCOIND; or use --node fake"
        )
    return None if program is None else RealNode(program)


def _site(session: "Session", port: int | None, prompt: "Prompt") -> "Site | None":
    """Show the pages, if what they need is installed."""
    from virtualchain.dev.outcomes import Outcome

    try:
        from virtualchain.dev.site import Site
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("virtualchain"):
            raise
        words = f"no pages: pip install 'virtualchain[web]' ({error.name} is missing)"
        prompt.show(Outcome("pages", {"url": None}, [words]))
        return None

    def say(line: str, outcome: "Outcome") -> None:
        asked = [f"form> {line}"] if line else []
        prompt.show(replace(outcome, lines=[*asked, *outcome.lines]))

    site = Site(port, session.state, session.do, say)
    session.on_load = site.show
    words = f"pages: {site.url} and a form for inputs: {site.form}"
    prompt.show(Outcome("pages", {"url": site.url, "form": site.form}, [words]))
    return site


def _watch(session: "Session", ended: threading.Event) -> None:
    while not ended.wait(_LOOK):
        session.look()


class Prompt:
    """Reads lines, and shows what comes of them, and what happens meanwhile."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._is_for_people = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
        self._lock = threading.Lock()
        self._waits = False
        """Whether the prompt stands on the screen."""

    def run(self, session: "Session") -> bool:
        """Do line after line, until the last one or `quit`; return whether all went well."""
        well = True
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # an encoder refuses what is not text
        with suppress(EOFError):
            while (line := self._read()) is not None:
                outcome = session.run(line)
                if outcome is None:
                    continue
                if outcome.event == "quit":
                    break
                self.show(outcome)
                well = well and not outcome.is_bad
        return well or self._is_for_people

    def show(self, outcome: "Outcome") -> None:
        """Print an outcome; from any thread."""
        with self._lock:
            if self._waits:
                click.echo("\r\033[K", nl=False)
            self._write(outcome)
            if self._waits:
                click.echo(_PROMPT + _typed(), nl=False)
            sys.stdout.flush()

    def _write(self, outcome: "Outcome") -> None:
        if self._as_json:
            write_json_line(outcome.as_dict())
            return
        for line in outcome.lines:
            click.echo(visible(line))
        if outcome.columns is not None:
            write_table(outcome.columns, outcome.rows)

    def _read(self) -> str | None:
        if not self._is_for_people:
            line = sys.stdin.readline()
            if line.strip() and not self._as_json:
                click.echo(_PROMPT + visible(line.rstrip("\n")))
            return line or None
        with suppress(ImportError):
            import readline  # noqa: F401 - lines can be edited, and recalled
        self._waits = True
        try:
            return input(_PROMPT)
        finally:
            self._waits = False


def _typed() -> str:
    """Return what was typed so far."""
    readline = sys.modules.get("readline")
    return "" if readline is None else str(readline.get_line_buffer())
