"""`holdfast doctor`: a healthy store passes; what was tampered with is found."""

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from backends import sqlite
from service.cli import doctor
from service.cli.doctor import Finding, examined
from service.kernel import chain
from service.main import running
from service.retention import sweeps as retention
from service.settings import Settings
from service.tokens.bootstrap import bootstrap
from tests.cli.conftest import Command
from tests.conftest import new_database, serving, settings_for


@pytest.fixture
async def store(fresh_url: str) -> tuple[Settings, str]:
    """A store in which something has happened, no longer served; and one of its tenants."""
    async with serving(fresh_url) as service:
        api = await service.tenant()
        for name in ("one", "two", "three"):
            await api.ok("POST", "/v1/tokens", json={"name": name, "role": "viewer"})
        return settings_for(fresh_url), api.tenant


async def tamper(settings: Settings, statement: str) -> None:
    """Change the store behind the service's back."""
    if settings.database_url.startswith("sqlite"):
        db = await sqlite.connect(Path(settings.database_url.removeprefix("sqlite:///")))
        db._db.execute(statement)
        await db.close()
    else:
        other = await asyncpg.connect(settings.database_url)
        await other.execute(statement)
        await other.close()


def failed(findings: list[Finding]) -> list[tuple[str, str]]:
    """What fails, and what is said of it."""
    return [(what, said) for mark, what, said in findings if mark == "FAIL"]


def of(findings: list[Finding], what: str) -> Finding:
    """The one finding about something."""
    [found] = [finding for finding in findings if finding.what == what]
    return found


async def test_a_healthy_store_passes(store: tuple[Settings, str], engine: str) -> None:
    findings = await examined(store[0])
    assert failed(findings) == []
    whats = {"sqlite": ["SQLite", "file"], "postgres": ["Postgres", "isolation", "synchronous_commit", "role"]}
    assert [finding.what for finding in findings] == [
        "schema", *whats[engine], "audit log", "logs", "tokens without an end", "tokens that end within 30 days",
        "admin tokens", *({"sqlite": [], "postgres": ["sweeps"]}[engine]),
    ]  # fmt: skip
    assert of(findings, "audit log").said == "2 chain(s) verify"
    assert of(findings, "admin tokens") == ("ok", "admin tokens", "1")


async def test_it_is_said_who_sweeps_and_what_it_means_that_nobody_does(postgres_server: str) -> None:
    url = await new_database(postgres_server)
    async with running(settings_for(url)) as services:
        nobody = of(await examined(settings_for(url)), "sweeps")
        assert nobody.mark == "warn" and "start `holdfast scheduler`" in nobody.said
        assert await services.lease.keep()
        assert of(await examined(settings_for(url)), "sweeps") == (
            "ok",
            "sweeps",
            f"{services.lease.holder} sweeps, epoch 1",
        )


@pytest.mark.parametrize("page", [1, 2, 1000])
async def test_chains_verify_whatever_the_page(
    store: tuple[Settings, str], page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "PAGE", page)
    assert failed(await examined(store[0])) == []
    await tamper(store[0], f"UPDATE audit SET actor = 'nobody' WHERE tenant_id = '{store[1]}' AND sequence = 3")
    [(_, said)] = failed(await examined(store[0]))
    assert "breaks at line 3" in said


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE audit SET action = 'token.kept' WHERE tenant_id = '{}' AND sequence = 2", "breaks at line 2"),
        ("DELETE FROM audit WHERE tenant_id = '{}' AND sequence = 2", "breaks at line 3"),
        ("DELETE FROM audit WHERE tenant_id = '{}' AND sequence = 1", "breaks at line 2"),
        ("DELETE FROM audit WHERE tenant_id = '{}' AND sequence >= 3", "ends at line 2, its head says 4"),
        ("DELETE FROM audit WHERE tenant_id = '{}'", "ends at line 0, its head says 4"),
        ("DELETE FROM audit_heads WHERE tenant_id = '{}'", "ends at line 4, its head says nothing"),
        ("UPDATE audit_heads SET hash = 'x' WHERE tenant_id = '{}'", "the end was altered"),
    ],
    ids=["changed", "taken-out", "no-beginning", "cut-off", "emptied", "no-head", "another-head"],
)
async def test_a_log_that_was_tampered_with_fails(statement: str, said: str, store: tuple[Settings, str]) -> None:
    await tamper(store[0], statement.format(store[1]))
    [(what, found)] = failed(await examined(store[0]))
    assert what == "audit log"
    assert said in found
    assert store[1] in found


async def test_the_systems_log_is_verified_too(store: tuple[Settings, str]) -> None:
    await tamper(store[0], "DELETE FROM audit WHERE tenant_id = '' AND sequence > 1")
    [(_, said)] = failed(await examined(store[0]))
    assert "of the system ends at line 1" in said


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM events WHERE execution_id = 'e1' AND sequence = 2", "whose log has a gap or ends elsewhere"),
        ("UPDATE executions SET sequence = 1 WHERE id = 'e1'", "whose log has a gap or ends elsewhere"),
        ("UPDATE executions SET sequence = 0 WHERE id = 'e1'", "whose log has a gap or ends elsewhere"),
        ("UPDATE executions SET sequence = 0 WHERE id = 'e2'", "whose log has a gap or ends elsewhere"),
        ("DELETE FROM events WHERE execution_id = 'e2' AND sequence = 1", "whose log has a gap or ends elsewhere"),
        ("DELETE FROM executions WHERE id = 'e1'", "that are gone while their log is there"),
        ("UPDATE executions SET open_items = 3 WHERE id = 'e1'", "that count other open items"),
        ("UPDATE work_items SET status = 'ready' WHERE id = 'i1'", "that are open though their log says"),
    ],
)
async def test_rows_of_two_moments_fail(fresh_url: str, statement: str, said: str) -> None:
    async with serving(fresh_url) as service:
        api = await service.tenant()
        await api.start(execution_id="e1", start={"queue": "q", "id": "i1"})
        [item] = await api.claim("q")
        await api.ok("POST", "/v1/work-items/i1/complete", json={"epoch": item["epoch"]})
        await api.start(execution_id="e2")
        await api.ok("POST", "/v1/executions/e2/status", json={"status": "completed"})
    settings = settings_for(fresh_url)
    assert failed(await examined(settings)) == []
    await tamper(settings, statement)
    assert any(said in found for _, found in failed(await examined(settings)))


async def test_an_execution_that_is_being_removed_is_not_broken(
    fresh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the page of its removal after which the store is examined."""
    monkeypatch.setattr(retention, "ROWS", 5)
    monkeypatch.setattr(retention, "PAGES_A_ROUND", 1)
    async with serving(fresh_url, execution_days=1) as service:
        api = await service.tenant()
        await api.start(execution_id="e1", labels={"l": "1"}, state={"s": 1})
        await api.ok("POST", "/v1/executions/e1/events", json={"events": [{"kind": "a"}] * 20})
        await api.ok("POST", "/v1/executions/e1/status", json={"status": "completed"})
        service.clock.advance(retention.DAY_MS + 1)
        services, halves = service.services, 0
        walk = services.lines["retention"] = retention.Walk()
        while not walk.rest_until:
            await retention.remove(services)
            assert await doctor.logs_of(services.backend) == [Finding("ok", "logs", "executions, logs and items agree")]
            halves += (await api.http.get("/v1/executions/e1")).status_code == 404
        assert halves > 3


async def test_a_tenant_that_is_being_deleted_is_left_alone(store: tuple[Settings, str]) -> None:
    await tamper(store[0], f"DELETE FROM audit WHERE tenant_id = '{store[1]}' AND sequence < 3")
    await tamper(store[0], f"UPDATE tenants SET status = 'deleting' WHERE tenant_id = '{store[1]}'")
    assert failed(await examined(store[0])) == []


async def test_tokens_that_live_too_long_or_end_soon_are_counted(fresh_url: str) -> None:
    async with serving(fresh_url) as service:
        for days in (None, None, 10, 30, 31):
            await bootstrap(service.services, tenant_id="default", role="viewer", days=days)
        await bootstrap(service.services)
        service.clock.advance(-2 * retention.DAY_MS)  # one that ended yesterday
        await bootstrap(service.services, tenant_id="default", role="viewer", days=1)
    findings = await examined(settings_for(fresh_url))
    assert of(findings, "tokens without an end").said.startswith("2;")
    assert of(findings, "tokens that end within 30 days").said.startswith("2;")
    assert of(findings, "admin tokens").said == "2"


def is_file(url: str) -> bool:
    """Whether a SQLite URL names a file that is there."""
    return Path(url.removeprefix("sqlite:///")).exists()


async def test_a_store_that_was_never_migrated_fails(empty_url: str, engine: str) -> None:
    findings = await examined(settings_for(empty_url))
    [(what, said)] = failed(findings)
    assert (what, "holdfast" in said) == ({"sqlite": "store", "postgres": "schema"}[engine], True)
    assert not is_file(empty_url), "to look for a file does not make one"


async def test_a_file_that_a_server_holds_is_said_to_be(fresh_url: str, engine: str) -> None:
    async with serving(fresh_url):
        findings = await examined(settings_for(fresh_url))
    if engine == "sqlite":
        [(_, said)] = failed(findings)
        assert said.startswith("another process serves") and said.endswith("stop it and ask again")
    else:
        assert failed(findings) == [], "Postgres is examined while it is served"


@pytest.mark.parametrize(
    ("version", "mark"),
    [("3.51.3", "ok"), ("3.52.0", "ok"), ("3.50.7", "ok"), ("3.44.6", "ok"), ("3.44.10", "ok"),
     ("3.51.2", "warn"), ("3.50.6", "warn"), ("3.49.2", "warn"), ("3.45.0", "warn"), ("3.40.1", "warn")],
)  # fmt: skip
def test_a_sqlite_with_the_wal_reset_bug_is_named(version: str, mark: str) -> None:
    found = doctor.sqlite_version(version)
    assert found.mark == mark
    assert version in found.said
    assert ("WAL-reset" in found.said) is (mark == "warn")


def test_a_postgres_is_judged_by_its_version_and_settings() -> None:
    versions = {number: doctor.postgres_version(number).mark for number in (130_020, 140_000, 180_004, 190_000)}
    assert versions == {130_020: "FAIL", 140_000: "ok", 180_004: "ok", 190_000: "warn"}
    values: dict[str, Any] = {name: doctor.synchronised(name).mark for name in ("on", "remote_apply", "local", "off")}
    assert values == {"on": "ok", "remote_apply": "ok", "local": "warn", "off": "FAIL"}
    assert [doctor.isolated(level).mark for level in ("read committed", "serializable")] == ["ok", "FAIL"]
    assert [doctor.role(superuser).mark for superuser in (True, False)] == ["warn", "ok"]


def test_the_command_prints_a_line_each_and_says_by_its_exit_code(
    store: tuple[Settings, str], holdfast: Command
) -> None:
    url = store[0].database_url
    well = holdfast("doctor", "--database-url", url)
    assert well.returncode == 0, well.stdout + well.stderr
    assert well.stdout.startswith("ok    schema: fits this program\n")


async def test_a_store_that_fails_is_an_exit_code(store: tuple[Settings, str], holdfast: Command) -> None:
    await tamper(store[0], f"DELETE FROM audit WHERE tenant_id = '{store[1]}' AND sequence > 3")
    ill = holdfast("doctor", "--database-url", store[0].database_url)
    assert ill.returncode == 1
    assert "FAIL  audit log: the chain of the tenant" in ill.stdout
    assert ill.stderr.startswith("holdfast: the store is not well")
