"""The command `serve`: pages for people and an API for programs; and the server beside a writer."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

import click

from virtualchain.cli.options import Command, Options, pass_options, ready_lag_option
from virtualchain.cli.output import log_arguments, say, write_json_line
from virtualchain.errors import UsageError
from virtualchain.metrics import READY_LAG
from virtualchain.notices import Notice

if TYPE_CHECKING:
    from virtualchain.app.contract import Contract
    from virtualchain.web.probing import Expose

PORT: Final = 8080
_RATE: Final = "1000/second"
_PAUSES: Final = (1.0, 5.0, 30.0)
"""Seconds until a server beside a writer that has ended is started again; the last one repeats."""
_FLAGS: Final = "VIRTUALCHAIN_FLAGS_OF_PARENT"
"""The variable that holds, as JSON, the options of the writer's command line for a server beside it."""
_GRACE: Final = 5.0
"""Seconds that it has to end."""

port_type = click.IntRange(min=0, max=65535)


@click.command(cls=Command)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0: all of them."
)
@click.option("--port", type=port_type, default=PORT, show_default=True, help="The port; 0: any free one.")
@click.option(
    "--rate-limit",
    default=_RATE,
    show_default=True,
    metavar="RATE",
    help="How many requests one address has; none: any.",
)
@click.option(
    "--cors",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of this origin read the API; * for all. Can be repeated.",
)
@click.option(
    "--proxy",
    metavar="ADDRESS",
    help="Believe this reverse proxy who asked and how; a comma separates several.",
)
@ready_lag_option
@click.option("--parent", type=int, hidden=True, help="End when this process has ended.")
@pass_options
def serve(
    options: Options,
    host: str,
    port: int,
    rate_limit: str,
    cors: tuple[str, ...],
    proxy: str | None,
    ready_lag: int,
    parent: int | None,
) -> None:
    """Show the deployment to browsers, and as JSON to programs.

    Only reads, as a mere reader: with or without a writer, on a primary or a standby. Apps that are named
    with --app bring pages of their own. With an owner's URL, webhooks of virtualchain.toml are delivered
    meanwhile. /health, /ready and /metrics are for monitors. On Ctrl-C or SIGTERM, ends.
    """
    from virtualchain.cli.session import existing_database

    if parent is not None:
        options.inherit(json.loads(os.environ.get(_FLAGS, "{}")))
    else:
        options.warn_of_exposed_passwords()
    with _delivering(options) if parent is None else nullcontext():
        show(
            options,
            lambda: existing_database(options),
            lambda: _contracts(options),
            host=host,
            port=port,
            rate_limit=rate_limit,
            cors=cors,
            proxy=proxy,
            parent=parent,
            ready_lag=ready_lag,
        )


def _delivering(options: Options) -> AbstractContextManager[object]:
    """Deliver the webhooks of the settings, if there are any: a writer that started this server does it."""
    webhooks = options.webhooks()
    if not webhooks:
        return nullcontext()
    from virtualchain.webhooks.deliverer import Deliverer

    return Deliverer(options.database, webhooks, say)


def show(
    options: Options,
    database: Callable[[], str],
    contracts: "Callable[[], dict[str, Contract]]",
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    rate_limit: str = _RATE,
    cors: Sequence[str] = (),
    proxy: str | None = None,
    parent: int | None = None,
    ready_lag: int = READY_LAG,
) -> None:
    """Serve the deployment of a database until SIGINT or SIGTERM; the rest is as for `make_application`."""
    try:
        from virtualchain.web.application import make_application
        from virtualchain.web.gate import hosts_of, parse_rate
        from virtualchain.web.serving import listen
        from virtualchain.web.serving import serve as answer
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("virtualchain"):
            raise
        raise UsageError(
            f"serve needs the extra web: pip install 'virtualchain[web]' ({error.name} is missing)"
        ) from error

    rate = None if rate_limit == "none" else parse_rate(rate_limit)
    apps = contracts()
    opened = listen(host, port)
    shown, number = opened.getsockname()[:2]
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{number}/"

    def started() -> None:
        if options.settings.json:
            write_json_line({"url": url})
        else:
            say(Notice(f"the deployment is shown at {url}", "serving", url=url))

    application = make_application(
        database,
        contracts=apps,
        hosts=None if proxy else hosts_of(shown),
        rate=rate,
        origins=cors,
        expose=_expose(),
        ready_lag=ready_lag,
    )
    answer(application, opened, proxies=proxy, parent=parent, on_start=started)


def _expose() -> "Expose | None":
    """Return what writes metrics; None without the extra `metrics`."""
    try:
        from virtualchain.operating.exposition import expose
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("virtualchain"):
            raise
        return None
    return expose


def _contracts(options: Options) -> "dict[str, Contract]":
    """Return the contracts of the apps that are named, by name; one that cannot be imported is left out."""
    from virtualchain.app.declarations import read_contract
    from virtualchain.loading import load_app

    contracts = {}
    for setting in options.settings.apps:
        try:
            contract = read_contract(load_app(setting.use))
        except UsageError as error:
            message = f"{error}; so this app has no pages of its own"
            say(Notice(message, "app_warned", app=setting.use))
        else:
            contracts[contract.name] = contract
    return contracts


@contextmanager
def serving(options: Options, port: int | None, ready_lag: int) -> Iterator[Callable[[], object]]:
    """Keep a server of the same deployment beside this process, in one of its own; none without a port.

    What is yielded begins to end it, from any thread; the end of the context waits for that.
    """
    if port is None:
        yield lambda: None
        return
    beside = _Beside(["--port", str(port), "--ready-lag", str(ready_lag)], options.flags)
    try:
        yield beside.begin_to_end
    finally:
        beside.end()


class _Beside:
    """A server in a process of its own, which is started again if it ends."""

    def __init__(self, arguments: Sequence[str], flags: Mapping[str, object]) -> None:
        program = [sys.executable, "-m", "virtualchain", *log_arguments()]
        self._command = [*program, "serve", *arguments, "--parent", str(os.getpid())]
        self._environment = {**os.environ, _FLAGS: json.dumps(flags)}  # others see a command line
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="serve", daemon=True)
        self._thread.start()

    def begin_to_end(self) -> None:
        """Have it end, without waiting for that."""
        with self._lock:
            if self._ended.is_set():
                return  # a second signal would not let it end in order
            self._ended.set()
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()

    def end(self) -> None:
        """End it, and wait for that."""
        self.begin_to_end()
        self._thread.join(_GRACE)
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()

    def _keep(self) -> None:
        attempt = 0
        while not self._ended.is_set():
            with self._lock:
                if self._ended.is_set():
                    return
                self._process = subprocess.Popen(  # noqa: S603 - our own command
                    self._command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            code = self._process.wait()
            if self._ended.is_set() or code == UsageError.exit_code:
                return
            pause = _PAUSES[min(attempt, len(_PAUSES) - 1)]
            message = f"the server has ended with code {code}; it is started again in {pause:.0f} s"
            say(Notice(message, "server_ended", exit_code=code, seconds=pause))
            self._ended.wait(pause)
            attempt += 1
