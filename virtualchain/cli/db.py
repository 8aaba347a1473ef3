"""The commands for the database: migrate, and db, with the embedded server and the roles of readers."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import click

from virtualchain.cli.options import Command, Group, Options, pass_options
from virtualchain.cli.output import duration, say, write_fields, write_json, write_table
from virtualchain.cli.session import (
    chosen_apps,
    existing_database,
    migrated_database,
    open_reading,
)
from virtualchain.errors import UsageError

if TYPE_CHECKING:
    from virtualchain.store.embedded.server import ServerStatus
    from virtualchain.store.embedded.standby import Replica
    from virtualchain.store.roles import Reader


@click.command(cls=Command)
@click.option(
    "--dry-run", is_flag=True, help="Only show the steps, what they lock, and how long they may take."
)
@pass_options
def migrate(options: Options, dry_run: bool) -> None:
    """Bring the database's schema up to date.

    Commands that write do this automatically; this command does nothing else.
    """
    from virtualchain.store.database import redact
    from virtualchain.store.revision import head

    if dry_run:
        _show_plan(options)
        return
    url, revision = migrated_database(options), head()
    if options.settings.json:
        write_json({"database": redact(url), "revision": revision})
    else:
        click.echo(f"{redact(url)} is at revision {revision}")


def _show_plan(options: Options) -> None:
    from contextlib import closing
    from dataclasses import asdict

    from virtualchain.store.database import connect_reader, redact
    from virtualchain.store.migration_plan import describe, plan
    from virtualchain.store.revision import current, head, refuse_newer

    url = existing_database(options)
    with closing(connect_reader(url)) as connection:
        revision = current(connection)
        refuse_newer(revision)
        steps = plan(connection, revision) if revision else []
    if options.settings.json:
        place = {"database": redact(url), "revision": revision, "needed": head()}
        write_json({**place, "steps": [{**asdict(step), "locks": list(step.locks)} for step in steps]})
    elif not steps:
        what = "has no schema yet" if revision is None else f"is at revision {revision} already"
        click.echo(f"{redact(url)} {what}")
    else:
        rows = [(s.revision, duration(s.seconds), ", ".join(s.locks), sum(s.rows.values())) for s in steps]
        write_table(["step", "about", "not readable meanwhile", "rows"], rows)
        click.echo(describe(steps, revision or ""))


@click.group(cls=Group)
def db() -> None:
    """Manage the embedded PostgreSQL server, and readers.

    The embedded server is used if --database is not set. It starts when a command needs it and keeps running
    afterwards; psql and other clients connect to it with its URL. Readers are roles that may only read; they
    can be created in any database.
    """


# The embedded server


@db.command()
@pass_options
def start(options: Options) -> None:
    """Start the server, creating its data folder if needed."""
    from virtualchain.store.embedded.server import EmbeddedServer

    EmbeddedServer().start()
    _write_status(options)


@db.command()
@pass_options
def stop(options: Options) -> None:
    """Stop the server and end its connections."""
    from virtualchain.store.embedded.server import EmbeddedServer

    EmbeddedServer().stop()
    _write_status(options)


@db.command()
@pass_options
def status(options: Options) -> None:
    """Show whether the server runs, and where."""
    _write_status(options)


@db.command()
@click.argument("name")
@pass_options
def create(options: Options, name: str) -> None:
    """Create the database NAME on the server, and print its URL.

    It is for another deployment, such as one of a test network: name it with --database or in
    VIRTUALCHAIN_DATABASE. Starts the server if it does not run.
    """
    from virtualchain.store.embedded.server import EmbeddedServer

    server = EmbeddedServer()
    server.start()
    _write_url(options, server.create_database(name))


@db.command()
@click.argument("name", default="virtualchain")
@pass_options
def url(options: Options, name: str) -> None:
    """Print the server's URL, including the password.

    Starts the server if it does not run. NAME is the database to connect to; the default is virtualchain.
    """
    from virtualchain.store.embedded.server import EmbeddedServer

    server = EmbeddedServer()
    server.start()
    if not server.has_database(name):
        raise UsageError(
            f"the embedded server has no database {name}: `virtualchain db create {name}` creates it"
        )
    _write_url(options, server.url_for(name))


def _write_url(options: Options, address: str) -> None:
    if options.settings.json:
        write_json({"url": address})
    else:
        click.echo(address)


def _write_status(options: Options) -> None:
    from virtualchain.store.embedded.server import EmbeddedServer

    server = EmbeddedServer().status()
    address = server.address
    if options.settings.json:
        write_json(
            {
                "running": server.running,
                "host": None if address is None else "127.0.0.1",
                "port": None if address is None else address.port,
                "folder": str(server.folder),
                "log": str(server.log),
                "programs": None if server.programs is None else str(server.programs),
                "old": [str(folder) for folder in server.old],
                "primary": None if server.primary is None else str(server.primary),
                "connected": server.is_connected,
                "successor": None if server.successor is None else str(server.successor),
                "standbys": [
                    {
                        "address": replica.address,
                        "state": replica.state,
                        "synchronous": replica.is_synchronous,
                        "lag_bytes": replica.lag,
                    }
                    for replica in server.replicas
                ],
            }
        )
        return
    write_fields(
        f"embedded server: {'running' if server.running else 'not running'}",
        {
            "address": None if address is None else f"127.0.0.1:{address.port}",
            "folder": server.folder,
            "log": server.log,
            "programs": server.programs,
            **({"old data": ", ".join(map(str, server.old))} if server.old else {}),
            **_replication(server),
        },
    )


def _replication(server: "ServerStatus") -> dict[str, object]:
    """Describe the server's part in replication, if it has one."""
    fields: dict[str, object] = {}
    if server.primary is not None:
        connected = {None: "", True: ", connected", False: ", not connected"}[server.is_connected]
        fields["standby of"] = f"{server.primary}{connected}"
    if server.successor is not None:
        fields["replaced by"] = f"{server.successor}: this server does not start any more"
    if server.replicas:
        fields["standbys"] = "; ".join(map(_describe, server.replicas))
    return fields


def _describe(replica: "Replica") -> str:
    kind = "synchronous, " if replica.is_synchronous else ""
    return f"{kind}{replica.state}, {replica.lag:,} bytes behind"


@db.command()
@click.option(
    "--from-bin",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The bin folder of the PostgreSQL that the data is of; by default it is looked for.",
)
@pass_options
def upgrade(options: Options, from_bin: Path | None) -> None:
    """Move the server to the PostgreSQL that is installed now.

    All databases, roles, passwords and settings are carried along. It takes as much disk again: the old data
    is kept until `db drop-old`. No writer may be running. If this fails or is interrupted, the data is as it
    was, and the command can be repeated.
    """
    from virtualchain.store.embedded.server import EmbeddedServer

    done = EmbeddedServer().upgrade(from_bin, say)
    if options.settings.json:
        databases = list(done.databases)
        write_json({"from": done.old, "to": done.new, "databases": databases, "old": str(done.kept)})
    else:
        click.echo(
            f"the embedded server is PostgreSQL {done.new} now; its data of PostgreSQL {done.old} is kept in "
            f"{done.kept} until `virtualchain db drop-old`"
        )


@db.command()
@pass_options
def drop_old(options: Options) -> None:
    """Remove the data that `db upgrade` has kept."""
    from virtualchain.store.embedded.server import EmbeddedServer

    folders = [str(folder) for folder in EmbeddedServer().drop_old()]
    if options.settings.json:
        write_json({"removed": folders})
    else:
        click.echo(f"removed {', '.join(folders)}" if folders else "no upgrade has left data")


@db.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--synchronous",
    is_flag=True,
    help="Have commits wait until a standby has them. Without any, the writer then stands still.",
)
@pass_options
def standby(options: Options, folder: Path, synchronous: bool) -> None:
    """Make a standby of the server, start it, and print its URL.

    It follows the server by streaming replication, and everything that reads works on it. FOLDER, which is
    made, becomes its VIRTUALCHAIN_HOME, with which the other db commands manage it: start, stop, status, and
    promote.
    """
    from virtualchain.store.embedded.server import EmbeddedServer

    made = EmbeddedServer().make_standby(folder.absolute(), synchronous=synchronous, report=say)
    _write_url(options, made.url)


@db.command()
@pass_options
def promote(options: Options) -> None:
    """Have a standby take over from its primary, and print its URL.

    The standby is that of VIRTUALCHAIN_HOME. Its primary must be stopped, and does not start again.
    """
    from virtualchain.store.embedded.server import EmbeddedServer

    _write_url(options, EmbeddedServer().promote())


# Readers


@db.command()
@click.argument("role")
@click.option("--login", is_flag=True, help="Let the role log in, with a new password that is printed once.")
@pass_options
def grant_reader(options: Options, role: str, login: bool) -> None:
    """Let ROLE read the apps' views, and nothing else.

    ROLE is created if it does not exist. It may read the views of all apps, including those installed later,
    or only of the apps named by --app; further calls add apps. New builds are granted automatically. What
    PostgreSQL grants to PUBLIC is revoked as far as virtualchain may revoke it; the rest is listed.
    """
    from virtualchain.store.database import connect_migrator
    from virtualchain.store.roles import grant_reader as grant

    database = migrated_database(options)
    with open_reading(options) as connection:
        apps = chosen_apps(options, connection)
    _harden_embedded(options)
    with connect_migrator(database) as connection:
        reader = grant(connection, role, apps, login=login)
    login_url = _login_url(database, reader)
    if options.settings.json:
        fields = {"role": role, "apps": apps, "login": reader.logs_in, "url": login_url}
        write_json({**fields, "remains": list(reader.remains)})
        return
    write_fields(
        f"{role} may read the views of {', '.join(apps) if apps else 'all apps'}",
        {
            "can log in": "yes" if reader.logs_in else "no: use --login, or GRANT it to a role that can",
            **({} if login_url is None else {"url": login_url}),
            "may also": "; ".join(reader.remains),
        },
    )


@db.command()
@click.argument("role")
@pass_options
def revoke_reader(options: Options, role: str) -> None:
    """Revoke what grant-reader granted; ROLE itself stays."""
    from virtualchain.store.database import connect_migrator
    from virtualchain.store.roles import revoke_reader as revoke

    database = options.database
    with open_reading(options), connect_migrator(database) as connection:
        revoke(connection, role)
    if options.settings.json:
        write_json({"role": role})
    else:
        click.echo(f"{role} can no longer read anything here; DROP ROLE removes it")


def _harden_embedded(options: Options) -> None:
    """On the embedded server, also revoke from PUBLIC what only its superuser can revoke."""
    from virtualchain.store.embedded.server import EmbeddedServer
    from virtualchain.store.roles import harden

    server = EmbeddedServer()
    name = server.database_at(options.database)
    if name is not None:
        with server.connect_superuser(name) as connection, connection.transaction():
            harden(connection)


def _login_url(database: str, reader: "Reader") -> str | None:
    """Return the URL with which a new reader logs in, including its password."""
    from psycopg.conninfo import make_conninfo

    if reader.password is None:
        return None
    if not database.startswith(("postgresql://", "postgres://")):
        return make_conninfo(database, user=reader.role, password=reader.password)
    parts = urlsplit(database)
    place = parts.netloc.rpartition("@")[2]
    login = f"{quote(reader.role, safe='')}:{reader.password}@{place}"
    others = [item for item in parts.query.split("&") if item.partition("=")[0] not in {"user", "password"}]
    return parts._replace(netloc=login, query="&".join(others)).geturl()
