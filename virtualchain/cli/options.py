"""The global options, which every command takes before and after its name.

A command's own help would drown in them, so they are shown once, by `virtualchain --help`. What was given
in either place is put together here and becomes `Settings` when a command asks for them.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from virtualchain.errors import UsageError

if TYPE_CHECKING:
    from virtualchain.bitcoin.networks import Network
    from virtualchain.bitcoin.source import BlockSource
    from virtualchain.settings import Policy, Settings

EPILOG: Final = (
    "The options of `virtualchain --help`, such as --app, --bitcoin, --database, --json, may stand here, too."
)
EXAMPLE: Final = "--app virtualchain.examples.notary"


class Given:
    """What the command line gave of the global options, and the settings that follow from it."""

    def __init__(self) -> None:
        self.flags: dict[str, Any] = {}

    def take(self, name: str, value: object) -> None:
        """Note an option; given twice, the one behind the command counts, and apps add up."""
        if value in {None, False, ()}:
            return
        self.flags[name] = (*self.flags.get(name, ()), *value) if isinstance(value, tuple) else value

    @cached_property
    def settings(self) -> "Settings":
        """Flags, environment and file put together; raises UsageError."""
        from virtualchain.settings import load

        return load(self.flags, os.environ, Path.cwd())

    @property
    def verbose(self) -> bool:
        """Whether tracebacks are wanted; where the settings are what is wrong, the flag says it."""
        try:
            return self.settings.verbose
        except UsageError:
            return bool(self.flags.get("verbose"))

    def apps(self) -> list[object]:
        """Import the apps to run; UsageError where none is named."""
        if not self.settings.apps:
            raise UsageError(f"name an app to run, for example {EXAMPLE}")
        return self.named_apps()

    def named_apps(self) -> list[object]:
        """Import the apps that are named, if any."""
        from virtualchain.settings import load_app

        return [load_app(app.use) for app in self.settings.apps]

    def policies(self) -> "dict[str, Policy]":
        """Give what each app to run wants to happen at a deep fork, by its name."""
        from virtualchain.app.contract import read_contract

        names = [read_contract(app).name for app in self.apps()]
        return dict(zip(names, (app.on_deep_fork for app in self.settings.apps), strict=True))

    def source(self, network: str | None = None) -> "BlockSource":
        """Open the files or the node; by default the node on this machine.

        It must be of the network asked for; where none is, `network` helps to find it.
        """
        from virtualchain.bitcoin import networks
        from virtualchain.bitcoin.files.source import open_blocks
        from virtualchain.bitcoin.node.node import open_source

        settings = self.settings
        name = settings.network or network
        wanted: Network | None = None if name is None else networks.network(name)
        if settings.blocks is not None:
            return open_blocks(settings.blocks, wanted)
        port = (wanted or networks.NETWORKS["mainnet"]).rpc_port
        return open_source(settings.bitcoin or f"http://127.0.0.1:{port}", settings.cookie, wanted)


pass_given = click.make_pass_decorator(Given, ensure=True)


class Command(click.Command):
    """A command that takes the global options."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*arguments, **{"epilog": EPILOG, **options})
        self.params += global_options(hidden=True)

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the global options, too, which the command's help does not show."""
        found = super().shell_complete(context, incomplete)
        if incomplete.startswith("-"):
            hidden = (item for item in self.params if isinstance(item, click.Option) and item.hidden)
            names = ((name, option.help) for option in hidden for name in option.opts)
            found += [CompletionItem(name, help=said) for name, said in names if name.startswith(incomplete)]
        return found


class Group(click.Group):
    """A group of commands that takes them, too, and shows them where it is the whole program."""

    command_class = Command
    group_class = type

    def __init__(self, *arguments: Any, whole: bool = False, **options: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*arguments, **{"epilog": None if whole else EPILOG, **options})
        self.params += global_options(hidden=not whole)

    def list_commands(self, context: click.Context) -> list[str]:
        """Give the commands in the order in which one meets them, not by the alphabet."""
        del context
        return list(self.commands)


def global_options(*, hidden: bool) -> list[click.Option]:
    """Make the global options anew: each command has its own."""

    def option(*names: str, help: str, **attributes: Any) -> click.Option:  # noqa: A002, ANN401 - click's own
        return click.Option(
            names, help=help, hidden=hidden, expose_value=False, callback=remember, **attributes
        )

    return [
        option(
            "--app",
            multiple=True,
            metavar="MODULE[:OBJECT]",
            help="An app, by its module or an object in it; may be given several times.",
        ),
        option(
            "--bitcoin",
            metavar="URL",
            help="The node: http://user:password@host:port. Default: the one on this machine.",
        ),
        option(
            "--cookie",
            metavar="FILE",
            help="The node's cookie file, instead of a password. Default: where bitcoind puts it.",
        ),
        option(
            "--blocks",
            metavar="PATH",
            help="Files instead of a node: bitcoind's data or blocks folder, or one file as in there.",
        ),
        option(
            "--verify",
            metavar="merkle",
            help="Compare each block's transactions with its Merkle root, and their witnesses, first.",
        ),
        option(
            "--database",
            metavar="URL",
            help="PostgreSQL: postgresql://user:password@host/name. Default: the embedded server.",
        ),
        option(
            "--confirmations",
            metavar="K",
            help="Take a block once K blocks stand on it. Default: 6.",
        ),
        option(
            "--history",
            metavar="N",
            help="Keep what is needed to go back N blocks, or all. Default: 1000.",
        ),
        option(
            "--network",
            metavar="NAME",
            help="What the node or files must be of: mainnet, testnet3, testnet4, signet or regtest.",
        ),
        option("--config", metavar="FILE", help="Read settings from FILE. Default: ./virtualchain.toml."),
        option("--json", is_flag=True, help="Print JSON, and nothing else, on standard output."),
        option("-v", "--verbose", is_flag=True, help="Show where an error comes from."),
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


def remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Note an option of the command line among those given."""
    assert parameter.name is not None, "every option has a name"
    context.ensure_object(Given).take(parameter.name, value)


def _print_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001 - click's own
    if value and not context.resilient_parsing:
        import virtualchain

        click.echo(f"virtualchain {virtualchain.__version__}")
        context.exit()
