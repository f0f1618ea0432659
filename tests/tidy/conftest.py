"""An empty Postgres database for the checks that need no service."""

import pytest

from tests.conftest import new_database


@pytest.fixture(scope="session")
async def postgres_url(postgres_server: str) -> str:
    """The URL of a fresh database."""
    return await new_database(postgres_server)
