"""The compose file and the image: pinned, watched, without more rights than they need. No engine is asked."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import Command, Context

from virtualchain.cli import program
from virtualchain.settings import load

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_watched_and_started_again(name: str) -> None:
    """Its image has a version, somebody asks whether it works, and it is started again when it ends."""
    service = SERVICES[name]
    assert name in OURS or re.fullmatch(r"[a-z/]+:\d+\.\d+", service["image"])
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_write_nowhere_and_have_no_rights(name: str) -> None:
    """The root is read-only, and so a bug of an app cannot change the program."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_started_with_what_the_command_knows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command's options exist, and every variable is a setting; passwords are in files."""
    service = SERVICES[name]
    command = program.commands[service["command"][0]]
    assert isinstance(command, Command)
    command.make_parser(Context(command)).parse_args(list(service["command"][1:]))
    variables = dict(service["environment"])
    contents = {item["target"]: COMPOSE["configs"][item["source"]]["content"] for item in service["configs"]}
    for key, value in variables.items():
        if key.endswith("_FILE"):
            file = tmp_path / Path(value).name
            file.write_text(re.sub(r"\$\{\w+:-(\w+)\}", r"\1", contents[value]))
            variables[key] = str(file)
        else:
            assert "${PLAYGROUND_PASSWORD" not in value
            variables[key] = re.sub(r"\$\{\w+:-([\w.]+)\}", r"\1", value)
    settings = load({}, variables, tmp_path)
    assert settings.database == "postgresql://virtualchain:virtualchain@postgres/virtualchain"
    assert settings.bitcoin == ("http://virtualchain:virtualchain@bitcoind:18443",)
    assert settings.network == "regtest"
    assert [app.use for app in settings.apps] == ["virtualchain.examples.notary"]


def test_the_image_is_pinned_and_runs_as_nobody() -> None:
    """Its bases have exact versions, and its user is a number: so orchestrators see that it is not root."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base) for base in bases)
    [user] = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert int(user) > 1000
    extras = re.search(r"'\.\[(.*)\]'", "\n".join(lines))
    assert extras is not None
    assert {"web", "metrics"} <= set(extras[1].split(","))
