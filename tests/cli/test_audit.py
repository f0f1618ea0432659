"""`holdfast audit …`: an export that verifies anywhere, a store whose every chain is looked at."""

import json
from pathlib import Path

import pytest

from service.settings import Settings
from tests.audit.steps import tamper
from tests.cli.conftest import Command, Running
from tests.conftest import serving, settings_for


@pytest.fixture
async def store(fresh_url: str) -> tuple[Settings, str]:
    """A store with a tenant in it, no longer served; and the tenant."""
    async with serving(fresh_url) as service:
        api = await service.tenant()
        await api.ok("POST", "/v1/tokens", json={"name": "one", "role": "viewer"})
        return settings_for(fresh_url), api.tenant


async def test_every_chain_of_a_store_is_verified(store: tuple[Settings, str], holdfast: Command) -> None:
    url = store[0].database_url
    done = holdfast("audit", "verify", "--database-url", url)
    assert (done.returncode, done.stderr) == (0, "")
    system, tenant = done.stdout.splitlines()
    assert system.startswith("ok    the chain of the system is whole: 2 line(s), the last 2 ")
    assert tenant.startswith(f"ok    the chain of the tenant '{store[1]}' is whole: 2 line(s), the last 2 ")
    assert holdfast("audit", "verify", "--tenant", store[1], "--database-url", url).stdout == f"{tenant}\n"
    assert holdfast("audit", "verify", "--tenant", "system", "--database-url", url).stdout == f"{system}\n"
    unknown = holdfast("audit", "verify", "--tenant", "nobody", "--database-url", url)
    assert (unknown.returncode, "no audit log of a tenant 'nobody'" in unknown.stderr) == (2, True)


async def test_a_chain_that_is_not_whole_is_an_exit_code(store: tuple[Settings, str], holdfast: Command) -> None:
    async with serving(store[0].database_url) as service:
        await tamper(service, "UPDATE audit SET actor = 'nobody' WHERE tenant_id = '{}' AND sequence = 2", store[1])
    done = holdfast("audit", "verify", "--database-url", store[0].database_url)
    assert done.returncode == 1
    assert f"FAIL  the chain of the tenant '{store[1]}' breaks at line 2" in done.stdout
    assert done.stderr.startswith("holdfast: an audit log is not whole")


def test_an_export_is_verified_without_the_store(holdfast: Command, served: Running, tmp_path: Path) -> None:
    environ = {"HOLDFAST_URL": served.url, "HOLDFAST_TOKEN": served.tokens[0]}
    done = holdfast("audit", "export", "--output", "audit.ndjson", **environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    file = tmp_path / "audit.ndjson"
    assert [path.name for path in tmp_path.iterdir()] == ["audit.ndjson"]
    last = json.loads(file.read_text().splitlines()[-1])
    found = holdfast("audit", "verify", "audit.ndjson")
    assert found.stdout.startswith("ok    the chain of the system is whole: ")
    assert found.stdout.endswith(f"the last {last['sequence']} {last['hash']}\n")
    assert holdfast("audit", "export", **environ).stdout.splitlines()[1:] == file.read_text().splitlines()[1:]
    again = holdfast("audit", "export", "--output", "audit.ndjson", **environ)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    file.write_text(file.read_text().replace("token.minted", "token.forged", 1))
    broken = holdfast("audit", "verify", "audit.ndjson")
    assert (broken.returncode, "FAIL  the chain of the system breaks at line" in broken.stdout) == (1, True)
    file.write_text("nothing of ours\n")
    assert "is not one of an export of an audit log" in holdfast("audit", "verify", "audit.ndjson").stderr


def test_an_export_without_the_right_is_refused(holdfast: Command, served: Running, tmp_path: Path) -> None:
    done = holdfast("audit", "export", "--output", "x.ndjson", HOLDFAST_URL=served.url)
    assert (done.returncode, "no token was given" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []
