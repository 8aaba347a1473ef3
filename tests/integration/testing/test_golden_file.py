"""`check_golden`: a file that says what an app makes of its samples, and what is said when it changes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.rides import rides_app
from virtualchain import App, State
from virtualchain.errors import UsageError
from virtualchain.testing import check_golden
from virtualchain.testing.golden import UPDATE, RulesChanged

pytest_plugins = ("pytester",)

SAMPLES = [b"wdoabc", b"wdoabcd"]
WORDS = "CREATE TABLE words (id bigint PRIMARY KEY, word text NOT NULL)"


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests run as on an author's machine, in CI, too."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv(UPDATE, raising=False)


def an_app(longest: int = 3, **declared: Any) -> App:
    """Make an app that keeps words up to a length."""

    def keep(op: dict[str, Any], state: State, block_id: int, vtxindex: int) -> None:
        state.execute("INSERT INTO words VALUES (%s, %s)", [block_id * 100 + vtxindex, op["word"]])

    app = App("words", magic=b"wd", projections=WORDS, **declared)
    app.add(
        b"o",
        parse=lambda payload: {"word": payload.decode()},
        check=lambda op, state: len(op["word"]) <= longest,
        commit=keep,
    )
    return app


def test_a_file_is_written_once_and_then_compared(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change without a new version, one with it, and one of declarations alone are distinguished."""
    file = tmp_path / "golden.json"
    report = check_golden(an_app(), file, SAMPLES, database_url=database_url)
    assert report.is_written
    assert (report.blocks, report.accepted, report.refused) == (3, 3, 3)
    written = file.read_text()
    assert written.endswith("}\n")
    assert json.loads(written)["version"] == "1"
    assert written == json.dumps(json.loads(written), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["golden.json"]
    assert not check_golden(an_app(), file, SAMPLES, database_url=database_url).is_written

    with pytest.raises(RulesChanged) as raised:
        check_golden(an_app(4), file, SAMPLES, database_url=database_url)
    message = str(raised.value)
    assert message.startswith(
        f"app words has other results than in {file}, and its version is still 1. What changes first:\n"
        "- block 21\n- input: sample b'wdoabcd' by alice: refused check: refused <> sample b'wdoabcd' by "
        'alice: accepted 1 {"word": "abcd"}'
    )
    assert '- row: none <> words {"id": 2101} insert {"id": 2101, "word": "abcd"}' in message
    assert "- consensus_hash: " in message
    assert "- state_hash: " in message
    with pytest.raises(RulesChanged, match=r"app words has version 2, and .* is of version 1.*\n- block 21"):
        check_golden(an_app(4, version="2"), file, SAMPLES, database_url=database_url)
    with pytest.raises(RulesChanged, match=r"declares other rules than .*still 1.*\n- no verdict and no row"):
        check_golden(an_app(max_payload=70), file, SAMPLES, database_url=database_url)
    with pytest.raises(RulesChanged, match="is tried with other samples"):
        check_golden(an_app(), file, SAMPLES[:1], database_url=database_url)
    assert file.read_text() == written
    file.write_text(written.replace("check: refused", "check: no"))
    with pytest.raises(RulesChanged, match=r"(?s)has the hashes of .*\n- input: .*\nNo node differs"):
        check_golden(an_app(), file, SAMPLES, database_url=database_url)

    monkeypatch.setenv(UPDATE, "1")
    assert check_golden(an_app(4), file, SAMPLES, database_url=database_url).is_written
    monkeypatch.setenv(UPDATE, "0")
    assert not check_golden(an_app(4), file, SAMPLES, database_url=database_url).is_written


def test_in_ci_a_missing_file_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written, and no database is asked for; a broken or foreign file is an error."""
    file = tmp_path / "golden.json"
    monkeypatch.setenv("CI", "true")
    with pytest.raises(RulesChanged, match=r"no golden file .*golden\.json: run the test once outside"):
        check_golden(an_app(), file, SAMPLES)
    assert not file.exists()
    with pytest.raises(UsageError, match="check_golden needs samples"):
        check_golden(an_app(), file)


@pytest.mark.parametrize("text", ["<<<<<<< HEAD", "[]", '{"app": "words"}'])
def test_a_file_that_is_none(database_url: str, tmp_path: Path, text: str) -> None:
    """A merge conflict, and JSON of another form."""
    file = tmp_path / "golden.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"golden\.json is no golden file: .*pytest --update-golden"):
        check_golden(an_app(), file, SAMPLES, database_url=database_url)


def test_a_file_of_another_app_and_an_app_that_halts(database_url: str, tmp_path: Path) -> None:
    """Both are named; an app that tracks outputs has them spent."""
    file = tmp_path / "golden.json"
    report = check_golden(rides_app(), file, [b"rim5"], database_url=database_url)
    assert report.accepted > 10
    with pytest.raises(UsageError, match=r"golden\.json is of app rides, not of words"):
        check_golden(an_app(), file, SAMPLES, database_url=database_url)
    halting = App("words", magic=b"wd")
    halting.add(b"o", parse=lambda payload: {"word": payload.decode()[9]})
    with pytest.raises(UsageError, match="app words halts, so that there is nothing to compare"):
        check_golden(halting, tmp_path / "other.json", SAMPLES, database_url=database_url)


def test_the_option_of_pytest(pytester: pytest.Pytester, database_url: str) -> None:
    """A path begins at the test's folder; --update-golden writes the file again."""
    pytester.makepyfile(
        test_app=f"""
        from virtualchain import App
        from virtualchain.testing import check_golden

        app = App("words", magic=b"wd")
        app.add(b"o", parse=lambda payload: {{"word": payload.decode()}})

        def test_rules():
            check_golden(app, "golden.json", [b"wdoabc"], database_url={database_url!r})
        """
    )
    file = pytester.path / "golden.json"
    file.write_text("stale")
    arguments = ("-p", "no:cacheprovider", "-n", "0")
    pytester.runpytest_subprocess(*arguments).assert_outcomes(failed=1)
    pytester.runpytest_subprocess(*arguments, "--update-golden").assert_outcomes(passed=1)
    assert json.loads(file.read_text())["app"] == "words"
