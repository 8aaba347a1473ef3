"""Values that are made when they are first looked at."""

from virtualchain.model import Lazy


def test_a_lazy_tuple_is_made_once_and_when_it_is_needed() -> None:
    """It is the tuple in every way that a sequence can be looked at."""
    made: list[int] = []

    def make(last: int) -> tuple[int, ...]:
        made.append(1)
        return (1, 2, last)

    lazy = Lazy(make, 3)
    assert made == []
    assert (lazy[0], lazy[1:], len(lazy), list(lazy), 2 in lazy) == (1, (2, 3), 3, [1, 2, 3], True)
    assert lazy == (1, 2, 3) == lazy == Lazy(make, 3)
    assert lazy != (1, 2)
    assert (hash(lazy), repr(lazy)) == (hash((1, 2, 3)), "(1, 2, 3)")
    assert made == [1, 1]  # one of them by the other Lazy
    lazy.forget()
    assert lazy == (1, 2, 3)
    assert made == [1, 1, 1]
