"""What a process remembers of its callers has a bound, whatever they send."""

from typing import Any

import pytest

from backends import postgres_listen
from backends.postgres_listen import EVERYTHING, Listener
from service.errors import StateError
from service.kernel.principal import Principal, Standing
from service.kernel.together import Together
from service.tokens import directory, sources, uses
from service.tokens.directory import Directory, Proven
from service.tokens.matches import Matches
from service.tokens.sources import Sources
from service.tokens.uses import Uses
from tests.conftest import Api

MANY = 50


@pytest.fixture
def tokens(api: Api, monkeypatch: pytest.MonkeyPatch) -> Directory:
    """The directory, with room for ten of everything."""
    for name in ("PROVEN_MAX", "LIMITS_MAX", "ENDS_MAX", "SUPPORT_MAX"):
        monkeypatch.setattr(directory, name, 10)
    found = api.service.services.tokens
    assert isinstance(found, Directory)
    return found


def test_headers_that_were_proven_are_the_last_few(tokens: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_proven", type(tokens._proven)())
    for n in range(MANY):
        tokens._remember(b"%d" % n, Proven(Principal("t", "owner"), 0.0))
    assert list(tokens._proven) == [b"%d" % n for n in range(MANY - 10, MANY)]


def test_rates_and_ends_that_are_kept_are_few(tokens: Directory) -> None:
    for n in range(MANY):
        tokens._learn(Principal(f"t{n}", "owner", f"k{n}"), Standing("active", {}), 0)
    assert len(tokens._limits) <= 11
    assert len(tokens._ends) <= 11


def test_sources_of_failures_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SOURCES_MAX", 10)
    found = Sources([], 5)
    for n in range(MANY):
        found.fail(f"192.0.2.{n}", 0)
    assert len(found._failures) <= 10


async def test_uses_that_are_noted_are_few(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uses, "NOTED_MAX", 10)
    found = Uses(api.service.services.kernel, Sources([], 5))
    for n in range(MANY):
        found.note(Principal(api.tenant, "owner", f"k{n}", api.tenant), api.clock.now, {}, {})
    assert len(found._noted) <= 10
    assert len(found._used) <= 10
    await found.close()


def test_proofs_that_are_kept_are_few() -> None:
    found = Matches(10, 300.0)
    for n in range(MANY):
        found.remember(b"%d" % n, f"k{n}", "v", 0.0)
    assert len(found) == 10


async def test_questions_that_wait_are_bounded() -> None:
    found: Together[int, int] = Together(None, lanes=0, waiting=0)  # type: ignore[arg-type]  # nobody reads
    with pytest.raises(StateError) as refused:
        await found.ask(1)
    assert (refused.value.code, refused.value.facts["retry_after"]) == ("server/busy", 1)


async def test_what_other_processes_are_to_be_told_is_little_while_they_cannot_be_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Commits go on while the connection that listens is away. Of more than is kept, everything is told."""
    monkeypatch.setattr(postgres_listen, "OUTGOING_MAX", 10)

    async def away() -> Any:
        raise OSError("no connection is left")

    listener = Listener(away)
    listener._receive(None, 0, "", "hello another tail/t")
    for n in range(MANY):
        listener.tell({f"tail/t/{n}": 1})
    assert len(listener._outgoing) <= 10
    assert listener._outgoing[EVERYTHING] == 1
