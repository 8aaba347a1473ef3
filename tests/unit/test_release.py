"""What is released: on which versions of Python it is tried, and what its bill of materials says."""

import importlib.util
import json
import re
import shutil
import tomllib
import venv
from importlib.metadata import distribution, version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from virtualchain import __version__

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """Import the program that builds what is released."""
    spec = importlib.util.spec_from_file_location("build_program", ROOT / ".ci" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_same_versions_of_python_everywhere(build: ModuleType) -> None:
    """The metadata, CI, the release and the policy name the same ones."""
    tried = [f"3.{minor}" for minor in range(build.OLDEST, build.NEWEST + 1)]
    metadata = PROJECT["project"]
    assert metadata["requires-python"] == f">={tried[0]}"
    classifiers = re.findall(r"Python :: (3\.\d+)", "\n".join(metadata["classifiers"]))
    assert classifiers == tried
    (matrix,) = re.findall(r"python: \[(.*)\]", (ROOT / ".github/workflows/ci.yml").read_text())
    assert re.findall(r"3\.\d+", matrix) == tried
    release = (ROOT / ".github/workflows/release.yml").read_text()
    assert re.findall(r"^ +(3\.\d+)$", release, re.MULTILINE) == tried
    assert PROJECT["tool"]["cibuildwheel"]["build"] == [
        f"cp{version.replace('.', '')}-*" for version in tried
    ]
    assert f"Python {tried[0]} to {tried[-1]}" in (ROOT / "docs/releases.md").read_text()


def test_the_bill_of_materials(build: ModuleType, tmp_path: Path) -> None:
    """It is CycloneDX, is about this version, and has the packages of an environment with their versions."""
    pytest.importorskip("cyclonedx_py", reason="the extra `release` is not installed")
    venv.create(tmp_path / "venv", with_pip=False)
    (packages,) = tmp_path.glob("venv/lib/python*/site-packages")
    for name in ("virtualchain", "click", "psycopg", "sqlglot"):
        described = Path(str(distribution(name).locate_file(f"{name}-{version(name)}.dist-info")))
        shutil.copytree(described, packages / described.name)
    file = tmp_path / "bom.json"
    build.describe(tmp_path / "venv", file)
    bom = json.loads(file.read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    about = bom["metadata"]["component"]
    assert (about["name"], about["version"], about["type"]) == ("virtualchain", __version__, "library")
    assert about["licenses"][0]["license"]["id"] == "MIT"
    versions = {component["purl"]: component["version"] for component in bom["components"]}
    assert versions == {
        f"pkg:pypi/{name}@{version(name)}": version(name) for name in ("click", "psycopg", "sqlglot")
    }
    needed = {entry["ref"]: entry.get("dependsOn", []) for entry in bom["dependencies"]}
    assert f"sqlglot=={version('sqlglot')}" in needed[about["bom-ref"]]


def test_what_differs_between_two_builds_is_named(build: ModuleType, tmp_path: Path) -> None:
    """A wheel's members are compared; equal files pass."""
    files = [tmp_path / name / "a-1-py3-none-any.whl" for name in ("first", "second", "third")]
    for file, text in zip(files, ("one", "one", "two"), strict=True):
        file.parent.mkdir()
        with build.zipfile.ZipFile(file, "w") as archive:
            archive.writestr(build.zipfile.ZipInfo("a.py"), text)
    build.compare(files[0], files[1])
    with pytest.raises(SystemExit, match=r"a-1-py3-none-any.whl differs when it is built again: a\.py"):
        build.compare(files[0], files[2])
