"""The global options, which every command accepts before and after its name.

A command's own help would drown in them, so only `virtualchain --help` shows them. `Options` collects the
values from both places, and turns them into `Settings` when a command asks for these.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from virtualchain.cli.examples import LESSONS
from virtualchain.cli.output import say
from virtualchain.errors import UsageError
from virtualchain.metrics import READY_LAG
from virtualchain.notices import Notice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from virtualchain.app.contract import Contract
    from virtualchain.bitcoin.networks import Network
    from virtualchain.bitcoin.source import BlockSource
    from virtualchain.settings import Policy, Settings
    from virtualchain.webhooks.messages import Webhook

EPILOG: Final = (
    "The options of `virtualchain --help`, such as --app, --bitcoin, --database and --json, work here too."
)
EXAMPLE: Final = "--app virtualchain.examples.notary"
BLOCK_ID: Final = click.IntRange(min=0, max=2**31 - 1)
"""The type of an argument or option that is a block's height."""
wait_option = click.option(
    "--wait", is_flag=True, help="Wait while another process is writing, instead of giving up."
)


no_apply_option = click.option(
    "--no-apply",
    is_flag=True,
    help="Keep what the apps need on the tape, and apply none of them: for state nodes (--tape).",
)
ready_lag_option = click.option(
    "--ready-lag",
    type=click.IntRange(min=0),
    default=READY_LAG,
    show_default=True,
    metavar="BLOCKS",
    help="How many stable blocks may be missing while /ready says yes.",
)


def sign_option(what: str) -> "Callable[[Any], Any]":
    """Make the option that names the keys with which a command signs what it writes, as `keys`."""
    return click.option(
        "--sign",
        "keys",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"{what} with the ed25519 private key in this file, of `checkpoint keygen` or `ssh-keygen`. "
        "Can be repeated.",
    )


trust_option = click.option(
    "--trust",
    multiple=True,
    metavar="KEY",
    expose_value=False,
    callback=lambda *arguments: record_option(*arguments),  # noqa: PLW0108 - it is defined below
    help="Reject a checkpoint unless this public key signed it. Can be repeated: one of the keys suffices.",
)


class Options:
    """The global options of a command line, and the settings and objects that follow from them."""

    def __init__(self) -> None:
        self.flags: dict[str, Any] = {}

    def inherit(self, flags: "Mapping[str, Any]") -> None:
        """Take over the options of the process that started this one, as JSON has them."""
        for name, value in flags.items():
            self.flags[name] = tuple(value) if isinstance(value, list) else value

    def add(self, name: str, value: object) -> None:
        """Record an option; a value after the command's name replaces one before it, and apps add up."""
        if value in {None, False, ()}:
            return
        self.flags[name] = (*self.flags.get(name, ()), *value) if isinstance(value, tuple) else value

    @cached_property
    def settings(self) -> "Settings":
        """The settings from flags, environment and file; raises UsageError, reports what is deprecated."""
        import warnings

        from virtualchain.settings import load

        with warnings.catch_warnings(record=True) as deprecated:
            warnings.simplefilter("always", FutureWarning)
            settings = load(self.flags, os.environ, _working_directory())
        for text in {str(warning.message) for warning in deprecated if warning.category is FutureWarning}:
            say(Notice(text, "deprecated"))
        for warning in settings.warnings:
            _warn_of_password(warning)
        return settings

    def warn_of_exposed_passwords(self) -> None:
        """Warn of passwords on the command line, if this process stays in the process list for long."""
        from virtualchain.settings import exposed_passwords

        for warning in exposed_passwords(self.flags):
            _warn_of_password(warning)

    @property
    def verbose(self) -> bool:
        """Whether to show tracebacks; if the settings are invalid, the flag alone decides."""
        try:
            return self.settings.verbose
        except UsageError:
            return bool(self.flags.get("verbose"))

    @cached_property
    def database(self) -> str:
        """The database's URL; without one in the settings, the embedded server's, which is started if needed.

        From then on, what sessions wait for is reported. Raises UsageError, StoreError.
        """
        import logging

        from virtualchain.store.database import resolve
        from virtualchain.store.patience import report_waiting

        logging.getLogger("psycopg").addHandler(logging.NullHandler())  # its warnings repeat our errors
        report_waiting(say)
        return resolve(self.settings.database)

    def apps(self) -> list[object]:
        """Import the apps to run; raises UsageError if none is named."""
        if not self.settings.apps:
            raise UsageError(f"name an app to run, for example {EXAMPLE}")
        return self.named_apps()

    def named_apps(self) -> list[object]:
        """Import the apps that are named, if any."""
        from virtualchain.loading import load_app

        return [load_app(app.use) for app in self.settings.apps]

    def files(self) -> dict[str, str | None]:
        """Return the file in which each app to run was found, by the app's name."""
        from virtualchain.loading import app_file

        files = [app_file(app.use) for app in self.settings.apps]
        return dict(zip((contract.name for contract in self.contracts()), files, strict=True))

    def contracts(self) -> "list[Contract]":
        """Read the contracts of the apps to run; raises UsageError if none is named."""
        from virtualchain.app.declarations import read_contract

        return [read_contract(app) for app in self.apps()]

    def applied_and_kept(self, *, no_apply: bool = False) -> tuple[list[object], list[object]]:
        """Import the apps to run; return those that are applied, and those whose inputs are only kept.

        With `no_apply`, none is applied. Raises UsageError if none is named.
        """
        kept = [no_apply or not app.apply for app in self.settings.apps]
        apps = list(zip(self.apps(), kept, strict=True))
        return [app for app, is_kept in apps if not is_kept], [app for app, is_kept in apps if is_kept]

    def policies(self, applied: "Sequence[object]") -> "dict[str, Policy]":
        """Return the policies for deep forks of apps that are applied, by the app's name."""
        from virtualchain.app.declarations import read_contract

        names = {read_contract(app).name for app in applied}
        policies = zip(self.contracts(), self.settings.apps, strict=True)
        return {each.name: app.on_deep_fork for each, app in policies if each.name in names}

    def webhooks(self) -> "list[Webhook]":
        """Return the webhooks of the settings with their secrets; raises UsageError if one is missing."""
        from virtualchain.webhooks.messages import Webhook

        return [Webhook(setting, setting.key(os.environ)) for setting in self.settings.webhooks]

    def source(self, network: str | None = None, *, of_first: bool = False) -> "BlockSource":
        """Open the block files, or connect to the upstream, or to the node or nodes; by default, to one here.

        `of_first`: of several nodes, only to the first, whose wallet or mempool is meant.
        The source must be on the network of --network. Without that option, `network` selects the default
        port and is checked instead.
        """
        from virtualchain.bitcoin import networks
        from virtualchain.bitcoin.files.source import open_blocks
        from virtualchain.bitcoin.node.several import open_nodes

        settings = self.settings
        name = settings.network or network
        expected: Network | None = None if name is None else networks.network(name)
        if settings.blocks is not None:
            return open_blocks(settings.blocks, expected)
        if settings.tape is not None:
            from virtualchain.store.upstream import UpstreamSource

            return UpstreamSource(settings.tape, expected, say)
        port = (expected or networks.NETWORKS["mainnet"]).rpc_port
        urls = settings.bitcoin or (f"http://127.0.0.1:{port}",)
        return open_nodes(
            urls[:1] if of_first else urls,
            settings.cookie,
            expected,
            cacert=settings.cacert,
            zmq=settings.zmq,
            warn=_warn_of_password,
            notice=_tell_details if settings.verbose else None,
            report=say,
        )


def _tell_details(message: str) -> None:
    say(Notice(message, "detail"))


def _warn_of_password(message: str) -> None:
    say(Notice(message, "password_exposed"))


pass_options = click.make_pass_decorator(Options, ensure=True)


class Command(click.Command):
    """A command that accepts the global options."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*arguments, **{"epilog": EPILOG, **attributes})
        self.params += global_options(hidden=True)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples and the page to read next, then where the global options are."""
        _write_lesson(context, formatter)
        super().format_epilog(context, formatter)

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the global options as well, although the command's help does not show them."""
        items = super().shell_complete(context, incomplete)
        if incomplete.startswith("-"):
            hidden = (item for item in self.params if isinstance(item, click.Option) and item.hidden)
            names = ((name, option.help) for option in hidden for name in option.opts)
            items += [CompletionItem(name, help=text) for name, text in names if name.startswith(incomplete)]
        return items


class Group(click.Group):
    """A group of commands that accepts the global options; the root group shows them in its help."""

    command_class = Command
    group_class = type

    def __init__(self, *arguments: Any, is_root: bool = False, **attributes: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*arguments, **{"epilog": None if is_root else EPILOG, **attributes})
        self.params += global_options(hidden=not is_root)
        self.sections: dict[str, tuple[click.Command, ...]] = {}

    def add_section(self, title: str, *commands: click.Command) -> None:
        """Add commands that the help lists together, under a title."""
        self.sections[title] = commands
        for command in commands:
            self.add_command(command)

    def list_commands(self, context: click.Context) -> list[str]:
        """List the commands in the order in which a user needs them, not alphabetically."""
        del context
        return list(self.commands)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section before the options, which only those who know the commands need."""
        if not self.sections:
            super().format_options(context, formatter)
            return
        width = max(map(len, self.commands))
        for title, commands in self.sections.items():
            with formatter.section(title):
                room = formatter.width - width - 6
                formatter.write_dl(
                    [(str(item.name).ljust(width), item.get_short_help_str(room)) for item in commands]
                )
        click.Command.format_options(self, context, formatter)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples and the page to read next, then where the global options are."""
        _write_lesson(context, formatter)
        super().format_epilog(context, formatter)


def _write_lesson(context: click.Context, formatter: click.HelpFormatter) -> None:
    """Write how the command of a context is used, as `LESSONS` says."""
    path: list[str] = []
    at: click.Context | None = context
    while at is not None and at.parent is not None:
        path.insert(0, str(at.info_name))
        at = at.parent
    lesson = LESSONS.get(" ".join(path))
    if lesson is None:
        return
    if lesson.examples:
        with formatter.section("Examples"):
            for line in lesson.examples:
                formatter.write(f"{'':{formatter.current_indent}}virtualchain {line}\n")
    formatter.write_paragraph()
    formatter.write_text(f"Read next: {lesson.page}")


def global_options(*, hidden: bool) -> list[click.Option]:
    """Create the global options; each command has its own instances."""

    def option(*names: str, help: str, **attributes: Any) -> click.Option:  # noqa: A002, ANN401 - click's own
        return click.Option(
            names, help=help, hidden=hidden, expose_value=False, callback=record_option, **attributes
        )

    return [
        option(
            "--app",
            multiple=True,
            metavar="MODULE[:OBJECT]",
            help="An app: a module or a file (./token.py), or an object in it. Can be repeated.",
        ),
        option(
            "--bitcoin",
            multiple=True,
            metavar="URL",
            help="The node: http://user:password@host:port, or https://…. Can be repeated: if one fails, the "
            "next one is asked. Default: the node on this machine.",
        ),
        option(
            "--cookie",
            metavar="FILE",
            help="The node's cookie file, instead of a password. Default: bitcoind's default location.",
        ),
        option(
            "--cacert",
            metavar="FILE",
            help="Certificates to trust for a node over https (PEM). Default: the system's.",
        ),
        option(
            "--zmq",
            metavar="URL",
            help="Where the node, or the first one, publishes new blocks (zmqpubhashblock), and for "
            "`run --pending` unconfirmed transactions (zmqpubsequence). Default: `run` asks the node.",
        ),
        option(
            "--blocks",
            metavar="PATH",
            help="Read blocks from files instead of a node: bitcoind's data or blocks folder, or one file "
            "in the format of blk*.dat.",
        ),
        option(
            "--tape",
            metavar="URL",
            help="Follow another deployment's tape instead of a node: the URL of its database, as one of its "
            "readers.",
        ),
        option(
            "--verify",
            metavar="off|headers|merkle",
            help="Check nothing of the chain; the work, targets and times of its headers; or also each "
            "block's transactions and witnesses. Default: merkle for files, headers otherwise.",
        ),
        option(
            "--senders",
            metavar="node|bound|proved",
            help="Take senders on the node's word, as far as the inputs show them, or only with proof. "
            "Default: node.",
        ),
        option(
            "--database",
            metavar="URL",
            help="PostgreSQL: postgresql://user:password@host/name. Default: the embedded server.",
        ),
        option(
            "--confirmations",
            metavar="K",
            help="Process a block once K blocks follow it. Default: 6, with --tape 0; on other coins, see "
            "docs/chains.md.",
        ),
        option(
            "--history",
            metavar="N",
            help="Keep enough history to roll back N blocks, or `all`. Default: 1000.",
        ),
        option(
            "--deepest-rollback",
            metavar="BLOCKS",
            help="Undo at most so many blocks without you: at a deeper fork, stop with exit code 4. Default: "
            "no limit.",
        ),
        option(
            "--network",
            metavar="NAME",
            help="The network that the node or the files must be on: mainnet, testnet3, testnet4, signet, "
            "regtest, signet- and a custom signet's message start; litecoin, namecoin, dogecoin, each also "
            "with -testnet and -regtest; or one of an extension.",
        ),
        option(
            "--expect",
            multiple=True,
            metavar="FILE|URL",
            help="Digests that the apps must have, as another node printed them with `consensus --json`. An "
            "app with other ones stops. Can be repeated.",
        ),
        option(
            "--on-unexpected",
            metavar="halt|continue",
            help="What an app does that has other digests than expected. Default: halt.",
        ),
        option(
            "--guard",
            is_flag=True,
            help="Refuse or halt an app whose callbacks read the clock, files, the network and the like.",
        ),
        option(
            "--log-format",
            metavar="text|json",
            help="How to write what is said on standard error: lines for people, or one JSON object for each "
            "event. Default: text.",
        ),
        option(
            "--log-level",
            metavar="debug|info|warning|error",
            help="Say only what matters at least this much. Default: debug, which is everything.",
        ),
        option("--config", metavar="FILE", help="Read settings from FILE. Default: ./virtualchain.toml."),
        option("--json", is_flag=True, help="Print JSON, and nothing else, on standard output."),
        option("-v", "--verbose", is_flag=True, help="Show the traceback of an error, and more."),
        click.Option(
            ("--version",),
            is_flag=True,
            is_eager=True,
            expose_value=False,
            hidden=hidden,
            callback=_print_version,
            help="Show the version and exit.",
        ),
    ]


def cores() -> int:
    """Return how many processors this process may use."""
    may_use = getattr(os, "sched_getaffinity", None)  # not every system has it
    return len(may_use(0)) if may_use else os.cpu_count() or 1


def record_option(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Record a value of the command line in the context's `Options`."""
    assert parameter.name is not None, "every option has a name"
    context.ensure_object(Options).add(parameter.name, value)


def _print_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001 - click's own
    if value and not context.resilient_parsing:
        import virtualchain

        click.echo(f"virtualchain {virtualchain.__version__}")
        context.exit()


def _working_directory() -> Path:
    """Return it; raises UsageError if it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise UsageError("the working directory was removed: change to another one") from error
