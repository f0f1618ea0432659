"""A store without a service over it, and tenants of a test's own."""

import uuid
from collections.abc import AsyncIterator

import pytest

from backends import connect
from backends.protocol import StateBackend
from backends.statements import Statement, load
from tests.conftest import new_store


@pytest.fixture(scope="session")
async def store(
    engine: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[StateBackend]:
    """A migrated store of this engine, shared by tests that keep to their own tenant."""
    if engine == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'holdfast.db'}"
    else:
        url = await new_store(request.getfixturevalue("postgres_server"))
    backend = await connect(url, connections=6)
    await backend.migrate()
    yield backend
    await backend.close()


@pytest.fixture
def tenant() -> str:
    """A tenant id that no other test uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


class Says:
    """Adds statements to those that are loaded, for one test."""

    def __init__(self, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._engine, self._monkeypatch = engine, monkeypatch

    def __call__(self, name: str, text: str) -> None:
        self._monkeypatch.setitem(load(self._engine), name, Statement(name, text, self._engine))


@pytest.fixture
def says(engine: str, monkeypatch: pytest.MonkeyPatch) -> Says:
    """`says(name, text)` adds a statement, fitted to the engine as those of `sql/*.sql` are."""
    return Says(engine, monkeypatch)
