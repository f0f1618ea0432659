"""A server process that sweeps often, shared by the tests that kill or stop workers and leave the server alone."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import new_database
from tests.faults.sites import Site
from tests.races.server import prepared, serving_process


@pytest.fixture(scope="session")
async def site(
    engine: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Site]:
    """One server of this engine; each test makes a tenant of its own in it."""
    folder = tmp_path_factory.mktemp(f"site-{engine}")
    url = f"sqlite:///{folder / 'holdfast.db'}"
    if engine == "postgres":
        url = await new_database(request.getfixturevalue("postgres_server"))
    admin = await prepared(url)
    async with serving_process(url, folder / "server.log", sweep=True, sweep_interval_ms=50) as server:
        yield Site(server, admin)
