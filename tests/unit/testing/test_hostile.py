"""What strangers may send, as the test kit makes it up."""

from virtualchain.testing.hostile import hostile_bodies, mutations


def cases(depth: int) -> list[tuple[str, bytes]]:
    """Make all payloads, called this deep in the stack."""
    if depth:
        return cases(depth - 1)
    return [*hostile_bodies(), *mutations(b'{"name": "a", "number": 17}')]


def test_the_cases_are_the_same_however_deep_the_caller_is() -> None:
    """Values that are nested as deep as Python's stack are not made by recursion."""
    shallow = cases(0)
    assert b'{"name":"a","number":' + b"[" * 920 + b"]" * 920 + b"}" in dict(shallow).values()
    assert cases(600) == shallow
