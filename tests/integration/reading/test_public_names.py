"""What is public stays as it is recorded, until a change of it is meant."""

from tests.support.public_names import RECORD, changes, public_names


def test_what_is_public_is_recorded(database_url: str) -> None:
    """Names of Python, commands, settings, views, metrics, events and formats are those of the record."""
    complaint = changes(RECORD.read_text().splitlines(), public_names(database_url))
    assert complaint is None, complaint


def test_a_change_is_described() -> None:
    """What is gone calls for a deprecation, what is new for being recorded."""
    recorded = ["command virtualchain run", "setting verify"]
    assert changes(recorded, recorded) is None
    gone = changes(recorded, recorded[:1])
    assert gone is not None
    assert "setting verify" in gone
    assert "docs/releases.md#deprecation" in gone
    new = changes(recorded, [*recorded, "setting zmq"])
    assert new is not None
    assert "python -m tests.support.public_names" in new
    assert "deprecation" not in new
