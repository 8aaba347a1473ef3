"""The files that a running command has read: what changes in them is reported once, and nothing else is."""

import os
from pathlib import Path

import pytest

from virtualchain.cli.options import Options
from virtualchain.cli.watching import Watch, read_files

SETTINGS = """
[virtualchain]
cacert = "ca.pem"
[[apps]]
use = "package"
[[webhooks]]
url = "https://example.com"
app = "plain"
secret_file = "secret"
"""


def test_each_change_is_said_once(tmp_path: Path) -> None:
    """A new content, and an end; not a new date, and not the same content written again."""
    files = [tmp_path / name for name in ("changed", "gone", "touched", "kept", "later")]
    for file in files[:4]:
        file.write_text("as it was")
    lines: list[str] = []
    watch = Watch(files, lines.append)
    watch.look()
    assert lines == []
    changed, gone, touched, kept, later = files
    changed.write_text("otherwise")
    gone.unlink()
    os.utime(touched, (1, 1))
    kept.write_text("as it was")
    later.write_text("new")
    watch.look()
    watch.look()
    after = ": this process still uses what it read at its start, until a restart"
    assert lines == [f"{changed} has changed{after}", f"{gone} is gone{after}", f"{later} has changed{after}"]
    touched.write_text("now, too")
    watch.look()
    assert lines[3:] == [f"{touched} has changed{after}"]


def test_what_is_read_once_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings, the files that they name, and all modules of an app's package that were imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("VIRTUALCHAIN_DATABASE_FILE", "url")
    for name in [key for key in os.environ if key.startswith("VIRTUALCHAIN_") and not key.endswith("_FILE")]:
        monkeypatch.delenv(name)
    (tmp_path / "virtualchain.toml").write_text(SETTINGS)
    (tmp_path / "url").write_text("postgresql://127.0.0.1/x\n")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text(
        'from package.rules import parse\nfrom virtualchain import App\napp = App("plain", magic=b"st")\n'
        'app.add(b"o", parse=parse)\n'
    )
    (package / "rules.py").write_text("def parse(payload): return {}\n")
    (package / "unused.py").write_text("")
    options = Options()
    watched = {str(file.relative_to(tmp_path)) for file in read_files(options)}
    code = {"package/__init__.py", "package/rules.py"}
    assert watched == {"virtualchain.toml", "ca.pem", "url", "secret", *code}
    assert options.settings.database == "postgresql://127.0.0.1/x"
