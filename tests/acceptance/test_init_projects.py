"""The projects that `virtualchain init` makes: their linter, type checker and tests pass without an edit."""

import subprocess
from pathlib import Path

import pytest

from tests.support.pages import ROOT, code_blocks, environment, write_block
from virtualchain.scaffold.project import STARTS, create

CHOSEN = "fork_decides or (test_my_app and (claimed_once or hostile_inputs or as_before))"
"""The forks of all projects. What they do by the test kit alone takes long, and has tests of its own."""


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project of each start, with the start's name."""
    folder = tmp_path_factory.mktemp("projects")
    for start in STARTS:
        create(f"my_{start}", folder / start, "my", start)
    return folder


def test_the_linter_and_the_formatter_are_content(projects: Path) -> None:
    """Each project is checked by its own settings."""
    for start in STARTS:
        _run(projects / start, "ruff", "check", "--no-cache", ".")
        _run(projects / start, "ruff", "format", "--no-cache", "--check", ".")


def test_the_type_checker_is_content(projects: Path) -> None:
    """All projects, and the tutorial's, in one run with the settings of one, which are those of all."""
    settings = [_settings(projects / start, start) for start in STARTS]
    assert len(set(settings)) == 1
    create("points", projects / "tutorial", "poin")
    for block in code_blocks((ROOT / "docs" / "tutorial.md").read_text()):
        if block.language not in {"sh", "text"}:
            write_block(projects / "tutorial", block)
    made = {"points": "tutorial", **{f"my_{start}": start for start in STARTS}}
    files = [
        str(projects / folder / file) for name, folder in made.items() for file in (f"{name}.py", "tests")
    ]
    paths = {"MYPYPATH": ":".join(str(projects / folder) for folder in made.values())}
    # From here, with these options, what mypy has learned of virtualchain in a run of its own still holds.
    command = ("mypy", "--explicit-package-bases", "--config-file", str(projects / "app" / "pyproject.toml"))
    _run(ROOT, *command, *files, **paths)


def test_the_tests_pass(projects: Path) -> None:
    """The forks; and of one project more, with the hashes, which the first run writes."""
    paths = {"PYTHONPATH": ":".join(str(projects / start) for start in STARTS)}
    command = ("pytest", "-q", "-p", "no:randomly", "-p", "no:xdist", "--import-mode=importlib", "-k", CHOSEN)
    shown = _run(projects, *command, *(f"{start}/tests" for start in STARTS), **paths)
    assert "8 passed" in shown
    assert (projects / "app" / "tests" / "golden.json").is_file()


def _settings(project: Path, start: str) -> str:
    """Return a project's settings for pip and the tools, without what is its own."""
    text = (project / "pyproject.toml").read_text()
    return text[text.index("[tool.ruff]") :].replace(f"my_{start}", "app")


def _run(folder: Path, *command: str, **variables: str) -> str:
    """Run a tool of this environment in a folder; return what it prints. It must succeed."""
    done = subprocess.run(
        command, cwd=folder, env={**environment(), **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
