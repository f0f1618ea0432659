"""A part of a decision that is refused leaves nothing behind, and costs what it did, not what was decided before."""

from types import SimpleNamespace
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from service.errors import StateError
from service.kernel.principal import Standing, internal
from service.kernel.view import View


class Row(NamedTuple):
    key: str
    value: int


def view() -> View:
    base: Any = SimpleNamespace(locate=lambda row: (Row, (row.key,)), at=lambda _at: None)
    return View(base, internal("t"), Standing("active", {}), 0)


def done(found: View, steps: list[tuple[str, str]]) -> None:
    for n, (what, key) in enumerate(steps):
        getattr(found, what)(Row(key, n))


def stands(found: View) -> Any:
    return dict(found.put_), dict(found.added), set(found.removed)


def refused(
    found: View, steps: list[tuple[str, str]], inner: list[tuple[str, str]], *, also: bool
) -> StateError | None:
    def part() -> None:
        done(found, steps)
        refused(found, inner, [], also=True) if inner else None
        if also:
            raise StateError("not-found", "for the test")

    return found.attempt(part)


STEPS = st.lists(st.tuples(st.sampled_from(["put", "add", "remove"]), st.sampled_from("abc")), max_size=6)


@given(STEPS, STEPS, STEPS)
def test_what_is_refused_leaves_everything_as_it_was(before: Any, steps: Any, inner: Any) -> None:
    found = view()
    done(found, before)
    as_it_was = stands(found)
    assert isinstance(refused(found, steps, inner, also=True), StateError)
    assert stands(found) == as_it_was
    refused(found, steps, inner, also=False)
    alone = view()
    done(alone, before)
    done(alone, steps)
    assert stands(found) == stands(alone), "only the part within was refused"


def test_an_attempt_notes_what_it_writes_and_nothing_else() -> None:
    found = view()
    done(found, [("put", f"k{n}") for n in range(100)])
    noted: list[int] = []

    def part() -> None:
        done(found, [("put", "a"), ("remove", "k1")])
        noted.append(len(found._undo or ()))

    assert found.attempt(part) is None
    assert (noted, found._undo) == ([2], None)
