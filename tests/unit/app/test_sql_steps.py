"""Checks and commits in SQL, as they are declared: files, statements, parameters, identity."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from virtualchain import App
from virtualchain.app.declarations import read_contract
from virtualchain.app.sql_steps import SqlCheck, SqlCommit, read_steps
from virtualchain.errors import InvalidApp

INSERT = "INSERT INTO said VALUES (%(text)s)"


def an_app(commit: str | Path | None = INSERT, check: str | Path | None = None) -> App:
    """Make an app with one handler in SQL."""
    app = App("said", magic=b"sd")
    app.add(b"s", layout="text text", check=check, commit=commit)
    return app


def digest(commit: str, check: str | None = None) -> str:
    """Return the code digest of such an app."""
    return read_contract(an_app(commit, check)).code_digest()


def test_the_identity_has_the_statements_without_comments() -> None:
    """A word more or less is another app; comments, blanks and line breaks are not."""
    assert digest(INSERT) == digest(
        f"-- What was said; once.\n{INSERT.replace(' ', '  ', 2)} /* ; */ ;\n--end"
    )
    different = {
        digest(INSERT),
        digest(INSERT + ";" + INSERT),
        digest(INSERT.replace("INTO said", "INTO told")),
        digest("INSERT INTO said VALUES ('-- ' || %(text)s)"),
        digest("INSERT INTO said VALUES ('--  ' || %(text)s)"),
        digest(INSERT, "SELECT 'no' WHERE %(text)s = ''"),
    }
    assert len(different) == 6


def test_statements_are_split_where_they_end() -> None:
    """Semicolons in literals, names, comments and dollar quotes end nothing; each line is found."""
    text = """
-- first; really
SELECT ';' WHERE %(text)s = E'\\';' /* ; */;;

SELECT ";" FROM t WHERE x = $a$ ; $a$
;
  -- last
  VALUES ('%%')
"""
    steps = read_steps(SqlCheck, text, ["text"])
    assert steps.statements == (
        "SELECT ';' WHERE %(text)s = E'\\';'",
        'SELECT ";" FROM t WHERE x = $a$ ; $a$',
        "VALUES ('%%')",
    )


PROBLEMS: dict[str, tuple[str | None, str | None, str]] = {
    "unknown": (INSERT + ";\n\n" + INSERT.replace("text", "txt"), None, "%(txt)s is neither a field"),
    "position": ("INSERT INTO said VALUES (%s)", None, "a percent sign is written %%, and a parameter"),
    "percent": ("UPDATE said SET a = 5 % 3", None, "a percent sign is written %%"),
    "read": ("SELECT 1", None, "a statement begins with SELECT, and not with one of DELETE, INSERT"),
    "write": (None, INSERT, "a check reads only"),
    "control": ("COMMIT", None, "begins with COMMIT"),
    "empty": ("  -- nothing\n ; ", None, "there is no statement in"),
    "missing": ("nowhere.sql", None, "cannot read 'nowhere.sql', from the folder of"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_mistakes_are_found_when_the_app_is_declared(name: str) -> None:
    """The message names app, opcode, step, file, statement and line."""
    commit, check, message = PROBLEMS[name]
    with pytest.raises(InvalidApp) as refused:
        an_app(commit, check)
    assert str(refused.value).startswith("app said: opcode b's': ")
    assert message in str(refused.value)
    assert Path(__file__).name in str(refused.value)


def test_a_file_is_read_from_the_folder_of_the_module(tmp_path: Path) -> None:
    """A path leads from where the app is declared, and a message names the file and the line in it."""
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "say.sql").write_text(f"-- say\n{INSERT};\n\n{INSERT}")
    code = compile(
        "app.add(b's', layout='text text', commit='sql/say.sql')", str(tmp_path / "app.py"), "exec"
    )
    app = App("said", magic=b"sd")
    exec(code, {"app": app, "__name__": "app"})
    assert read_contract(app).code_digest() == digest(f"{INSERT};{INSERT}")
    marked = "\ufeff-- say\r\n" + f"{INSERT};\r\n{INSERT}"  # as editors on Windows write it
    (tmp_path / "sql" / "say.sql").write_bytes(marked.encode())
    app = App("said", magic=b"sd")
    exec(code, {"app": app, "__name__": "app"})
    assert read_contract(app).code_digest() == digest(f"{INSERT};{INSERT}")
    (tmp_path / "sql" / "say.sql").write_text(f"-- say\n{INSERT};\n\n{INSERT.replace('text', 'txt')}")
    with pytest.raises(InvalidApp, match=r"say\.sql, statement 2, line 4\)"):
        exec(code, {"app": App("said", magic=b"sd"), "__name__": "app"})


def test_a_class_can_have_sql_in_place_of_methods() -> None:
    """The names are those of the methods, and the opcode is called like the class."""
    app = App("said", magic=b"sd")

    @app.opcode(b"s")
    class Say:
        """Keep what was written."""

        layout = "text text"
        check = "SELECT 'nothing' WHERE %(text)s = ''"
        commit = INSERT

    contract = read_contract(app)
    assert app.build_input("say", text="hi") == b"sdshi"
    assert isinstance(contract.function("db_check", "73", 0), SqlCheck)
    assert isinstance(contract.function("db_commit", "73", 0), SqlCommit)


def test_parameters_are_known_from_declared_fields_only() -> None:
    """With a parse of its own and without fields, only the first op can tell; provided names are taken."""
    app = App("said", magic=b"sd")
    app.add(b"s", parse=lambda _: {"text": "x"}, commit=INSERT)
    with pytest.raises(InvalidApp, match="neither a field"):
        app.add(b"t", parse=lambda _: {"text": "x"}, fields=["other"], commit=INSERT)
    with pytest.raises(InvalidApp, match=r"every statement is given %\(txid\)s: rename that field"):
        app.add(b"u", layout="txid bytes(32)", commit="DELETE FROM said")


def test_statements_can_be_sent_to_another_process() -> None:
    """As `check_determinism` does, after they have run, too."""
    step: Any = read_steps(SqlCommit, INSERT, None)
    assert step._programs
    again = pickle.loads(pickle.dumps(step))
    assert again == step
    assert len(again._programs) == 1
