"""The second fence on Postgres: a statement that forgot its tenant finds no foreign row and changes none.

Each wrong statement here is one that a tidy check would refuse; the store is asked to carry it out all the same.
"""

import ast
import re
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from backends import connect, migrate
from backends.errors import SchemaMismatch, StoreError, Unfenced
from backends.postgres import SESSION, PostgresBackend
from backends.postgres_fence import Fence, listed
from backends.protocol import EVERY, Row, StateBackend, Tx
from backends.statements import Statement, load
from tests.conftest import new_database, serving, with_database
from tests.tidy.stock import stocked_postgres
from tests.tidy.test_plans import HOT, IDS, Hot, judge, postgres_plan

MINE, FOREIGN = "mine", "foreign"
JOB = ["k", "running", b"{}", 1, 0, 0, 1, 1]
APP, SWEEP = Fence().app, Fence().sweep
ANY_TENANT = {
    "service/alarms/sweeps.py", "service/audit/sweeps.py", "service/cli/audit.py", "service/cli/doctor.py",
    "service/kernel/jobs.py", "service/kernel/rota.py", "service/kernel/standing.py", "service/kernel/tallies.py",
    "service/operations/sweeps.py", "service/portability/imports.py", "service/retention/sweeps.py",
    "service/tokens/directory.py", "service/tokens/sweeps.py",
    "service/work/sweeps.py", "service/workers/sweeps.py",
}  # fmt: skip
"""Where the service may act for every tenant: sweeps, jobs, the command line, and finding out who asks."""


@pytest.fixture(params=["none", "transaction"])
async def fenced(request: pytest.FixtureRequest, postgres_server: str) -> AsyncIterator[StateBackend]:
    """A store of one connection, with a job of each of two tenants; on plain connections and as behind a pooler."""
    store = await connect(await new_database(postgres_server), connections=1, pooler=request.param)
    await store.migrate()
    for tenant in (MINE, FOREIGN, ""):
        await store.write(adding(tenant), tenants=[tenant])
    yield store
    await store.close()


def adding(tenant: str, name: str = "j") -> Any:
    """Write a job of a tenant."""
    return lambda tx: tx.many("insert_jobs", [[tenant, name, *JOB]])


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements without their tenant."""
    for name, text in {
        "wrong_read": "SELECT tenant_id, id FROM jobs ORDER BY tenant_id, id",
        "wrong_count": "SELECT count(*) FROM jobs",
        "wrong_update": "UPDATE jobs SET kind = 'stolen' WHERE id = :id",
        "wrong_move": "UPDATE jobs SET tenant_id = :tenant_id WHERE id = :id",
        "wrong_delete": "DELETE FROM jobs WHERE id = :id",
        "wrong_lock": "SELECT tenant_id FROM jobs WHERE id = :id FOR UPDATE",
        "kinds": "SELECT tenant_id, kind FROM jobs ORDER BY tenant_id",
        "who": "SELECT current_user, current_setting('holdfast.tenants', true), current_setting('is_superuser')",
    }.items():
        monkeypatch.setitem(load("postgres"), name, Statement(name, text, "postgres"))


async def seen(store: StateBackend, tenants: Collection[str] | None, *, scan: bool = False) -> list[str]:
    """The tenants whose jobs a reader without a tenant finds."""
    rows: list[Row] = await store.read(lambda tx: tx.all("wrong_read"), tenants=tenants, scan=scan)
    return [row[0] for row in rows]


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize("scan", [False, True])
async def test_a_read_that_forgot_its_tenant_finds_no_foreign_row(fenced: StateBackend, scan: bool) -> None:
    assert await seen(fenced, [MINE], scan=scan) == [MINE]
    assert await seen(fenced, [FOREIGN], scan=scan) == [FOREIGN]
    assert await seen(fenced, [MINE, FOREIGN], scan=scan) == [FOREIGN, MINE]
    assert await seen(fenced, [""], scan=scan) == [""]
    assert await seen(fenced, [], scan=scan) == []
    assert await seen(fenced, ["min", "ine", "nobody"], scan=scan) == []
    assert await seen(fenced, EVERY, scan=scan) == ["", FOREIGN, MINE]


@pytest.mark.usefixtures("wrong")
async def test_a_write_that_forgot_its_tenant_changes_no_foreign_row(fenced: StateBackend) -> None:
    async def spoil(tx: Tx) -> tuple[int, list[Row], Row | None]:
        locked = await tx.all("wrong_lock", id="j")
        return await tx.run("wrong_update", id="j"), locked, await tx.one("wrong_count")

    assert await fenced.write(spoil, tenants=[MINE]) == (1, [(MINE,)], (1,))
    assert await fenced.read(lambda tx: tx.all("kinds"), tenants=EVERY) == [("", "k"), (FOREIGN, "k"), (MINE, "stolen")]
    assert await fenced.write(lambda tx: tx.run("wrong_delete", id="j"), tenants=[MINE]) == 1
    assert await seen(fenced, EVERY) == ["", FOREIGN]


@pytest.mark.usefixtures("wrong")
async def test_no_row_is_written_into_another_tenant(fenced: StateBackend) -> None:
    """Neither made there nor moved there; and what the store says of it holds no text of the driver's."""
    moves = (adding(FOREIGN, "new"), lambda tx: tx.run("wrong_move", tenant_id=FOREIGN, id="j"))
    for move in moves:
        with pytest.raises(StoreError) as refused:
            await fenced.write(move, tenants=[MINE])
        assert str(refused.value) == "Postgres: 42501"
    assert await seen(fenced, EVERY) == ["", FOREIGN, MINE]


@pytest.mark.usefixtures("wrong")
async def test_a_connection_never_acts_for_whom_it_acted_before(fenced: StateBackend) -> None:
    """One connection, many tenants; refusals and exceptions between them."""

    async def fails(tx: Tx) -> None:
        await tx.all("wrong_read")
        raise ValueError

    for tenants, found in (([MINE], [MINE]), (EVERY, ["", FOREIGN, MINE]), ([FOREIGN], [FOREIGN]), ([], [])) * 2:
        assert await seen(fenced, tenants) == found
        with pytest.raises(ValueError, match=r"^$"):
            await fenced.write(fails, tenants=[FOREIGN])
        with pytest.raises(StoreError):
            await fenced.write(adding(FOREIGN, "new"), tenants=[MINE])
        with pytest.raises(ValueError, match=r"^$"):
            await fenced.read(fails, tenants=EVERY, scan=True)
        assert await seen(fenced, tenants) == found
        assert [row[0] for row in await fenced.write(lambda tx: tx.all("wrong_read"), tenants=tenants)] == found


@pytest.mark.usefixtures("wrong")
async def test_a_transaction_acts_as_a_role_that_is_nobody(fenced: StateBackend) -> None:
    assert await fenced.write(lambda tx: tx.one("who"), tenants=[MINE]) == (APP, f'{{"{MINE}"}}', "off")
    assert await fenced.read(lambda tx: tx.one("who"), tenants=["", MINE]) == (APP, f'{{"","{MINE}"}}', "off")
    assert [row[0] for row in await fenced.read(lambda tx: tx.all("who"), tenants=EVERY)] == [SWEEP]


def test_only_a_tenants_id_gets_into_a_command() -> None:
    for text in ("a'b", "a,b", "a b", "a;b", "a\\b", "a\nb", "ü"):
        with pytest.raises(ValueError, match="no tenant's id"):
            listed([MINE, text])


async def test_every_table_with_a_tenant_is_fenced(fenced: StateBackend) -> None:
    """As the catalogue has them, so a table that a later migration brings cannot be forgotten."""
    assert isinstance(fenced, PostgresBackend)
    db = await asyncpg.connect(fenced._dsn)
    try:
        held = await db.fetch(
            "SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,"
            " array(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid ORDER BY 1)"
            " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'"
            " WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"
        )
        assert len(held) > 20
        for name, enabled, forced, policies in held:
            assert (enabled, forced, policies) == (True, True, ["holdfast_every", "holdfast_tenants"]), name
        others = await db.fetch(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        )
        assert {row[0] for row in others} - {row[0] for row in held} == {"schema_migrations"}
    finally:
        await db.close()


# ── who may serve ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def migrated(postgres_server: str) -> AsyncIterator[tuple[str, Any]]:
    """The URL of a migrated store, and a connection to it as a superuser."""
    url = await new_database(postgres_server)
    store = await connect(url)
    await store.migrate()
    await store.close()
    db = await asyncpg.connect(url)
    yield url, db
    await db.close()


BREACHES = {
    "row level security is off": "ALTER TABLE tokens DISABLE ROW LEVEL SECURITY",
    "the owner is let through": "ALTER TABLE tokens NO FORCE ROW LEVEL SECURITY",
    "a policy is gone": "DROP POLICY holdfast_tenants ON audit",
    "a policy lets all through": "CREATE POLICY more ON audit TO PUBLIC USING (true)",
    "the policy was rewritten": "ALTER POLICY holdfast_tenants ON audit USING (true)",
    "the app role owns a table": f"ALTER TABLE jobs OWNER TO {APP}",
}


@pytest.mark.parametrize("breach", BREACHES.values(), ids=BREACHES)
async def test_a_server_does_not_start_where_the_fence_has_a_hole(migrated: tuple[str, Any], breach: str) -> None:
    """It says so, and serves when told to."""
    url, db = migrated
    await db.execute(breach)
    store = await connect(url)
    with pytest.raises(Unfenced, match="postgres_unfenced"):
        await store.check()
    await store.close()
    accepting = await connect(url, roles=None)
    await accepting.check()
    await accepting.close()


async def test_a_role_that_sees_past_the_fence_does_not_serve(migrated: tuple[str, Any]) -> None:
    url, db = migrated
    await db.execute(
        "CREATE ROLE sees_past NOLOGIN BYPASSRLS; CREATE ROLE sees_all NOLOGIN; CREATE ROLE sees_both NOLOGIN"
    )
    try:
        await db.execute("GRANT sees_all TO sees_both")
        for roles in (("sees_past", SWEEP), ("sees_both", "sees_all"), ("no_such_role", SWEEP)):
            store = await connect(url, roles=roles)
            with pytest.raises(Unfenced):
                await store.check()
            await store.close()
    finally:
        await db.execute("DROP ROLE sees_past; DROP ROLE sees_both; DROP ROLE sees_all")


async def test_a_server_that_knows_other_roles_takes_the_fence_from_nobody(migrated: tuple[str, Any]) -> None:
    """Those who serve already would find their tables empty, and say that every token was revoked."""
    url, db = migrated
    serving_already, stranger = await connect(url, connections=2), await connect(url, connections=2, roles=("x", "y"))
    try:
        await serving_already.check()
        await serving_already.write(adding(MINE), tenants=[MINE])
        with pytest.raises(Unfenced, match=rf"fenced for other roles: {APP}, {SWEEP}; name them in"):
            await stranger.migrate()
        assert await serving_already.read(lambda tx: tx.one("read_job", tenant_id=MINE, id="j"), tenants=[MINE])
        assert not await db.fetchval("SELECT count(*) FROM pg_roles WHERE rolname IN ('x', 'y')")
    finally:
        await serving_already.close()
        await stranger.close()


async def test_an_owner_who_is_no_superuser_migrates_and_serves(postgres_server: str) -> None:
    """With one URL: it makes what is missing, takes the roles, and what it owns is hidden from itself."""
    url = await new_database(postgres_server)
    name = f"owner_{re.split(r'[/?]', url.partition('//')[2])[1][2:10]}"
    admin = await asyncpg.connect(url)
    try:
        await admin.execute(
            f"CREATE ROLE {name} LOGIN; GRANT {APP}, {SWEEP} TO {name};GRANT CREATE, USAGE ON SCHEMA public TO {name}"
        )
        async with serving(as_role(url, name)) as service:
            mine = await service.tenant()
            started = await mine.start()
            assert (await mine.ok("GET", f"/v1/executions/{started['execution_id']}"))["status"]
            await service.services.backend.check()
        owner = await asyncpg.connect(as_role(url, name))
        assert await owner.fetchval("SELECT current_user") == name
        assert await owner.fetchval("SELECT row_security_active('executions')")
        await owner.close()
    finally:
        await admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
        await admin.close()


async def test_the_owner_migrates_and_another_serves(postgres_server: str) -> None:
    """The server logs in as a role that owns nothing and may do nothing but take the two roles."""
    url = await new_database(postgres_server)
    own = re.split(r"[/?]", url.partition("//")[2])[1][2:10]
    login, stranger = f"login_{own}", f"stranger_{own}"
    admin = await asyncpg.connect(url)
    try:
        await admin.execute(f"CREATE ROLE {login} LOGIN NOINHERIT; CREATE ROLE {stranger} LOGIN")
        with pytest.raises((Unfenced, SchemaMismatch)):
            async with serving(as_role(url, login)):
                pass
        owner = await connect(url)
        await owner.migrate()
        await owner.close()
        with pytest.raises(Unfenced, match=r"SET ROLE|bring the schema"):
            async with serving(as_role(url, stranger)):
                pass
        await admin.execute(f"GRANT {APP}, {SWEEP} TO {login}")
        async with serving(as_role(url, login)) as service:
            mine, foreign = await service.tenant(), await service.tenant()
            started = await mine.start()
            await foreign.refused("GET", f"/v1/executions/{started['execution_id']}", "not-found")
            assert (await mine.ok("GET", f"/v1/executions/{started['execution_id']}"))["status"]
    finally:
        await admin.execute(f"DROP ROLE {stranger}; REVOKE {APP}, {SWEEP} FROM {login}; DROP ROLE {login}")
        await admin.close()


def as_role(url: str, role: str) -> str:
    """`url` with another user."""
    return re.sub(r"//[^@/]*@", f"//{role}@", with_database(url, re.split(r"[/?]", url.partition("//")[2])[1]))


# ── what the service says ──────────────────────────────────────────────────────────────────────────────────────────


def test_every_transaction_of_the_service_says_for_whom_it_acts() -> None:
    """And only what is listed above acts for every tenant."""
    root = Path(__file__).parents[2]
    everywhere = set()
    for source in sorted((root / "service").rglob("*.py")):
        name = str(source.relative_to(root))
        for call in (node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("read", "write"):
                whose = ast.unparse(call.func.value)
                if whose.rpartition(".")[2] != "backend":
                    continue
                said = {word.arg: word.value for word in call.keywords}
                assert "tenants" in said, f"{name}:{call.lineno} does not say for whom it acts"
                if ast.unparse(said["tenants"]) in ("EVERY", "None"):
                    everywhere.add(name)
    assert everywhere <= ANY_TENANT, everywhere - ANY_TENANT


# ── what it does to plans ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=["as it grew", "analyzed"])
async def stocked(request: pytest.FixtureRequest, postgres_server: str) -> AsyncIterator[tuple[Any, bool]]:
    """A connection in the app role over a store with rows, and whether they were analyzed."""
    db = await asyncpg.connect(await new_database(postgres_server), server_settings=SESSION)
    await migrate.on_postgres(db)
    await Fence().raise_up(db)
    await stocked_postgres(db, analyzed=request.param == "analyzed")
    await db.execute(f"SET plan_cache_mode = force_generic_plan; {Fence().scope(['acme', 'globex'], local='')}")
    yield db, request.param == "analyzed"
    await db.close()


@pytest.mark.parametrize("hot", HOT, ids=IDS)
async def test_a_fenced_statement_walks_the_same_index(stocked: tuple[Any, bool], hot: Hot) -> None:
    db, analyzed = stocked
    if hot.only_analyzed and not analyzed:
        return
    judge(hot, await postgres_plan(db, hot))


async def test_nobody_else_analyzes_what_the_plans_are_made_for(stocked: tuple[Any, bool]) -> None:
    """Every table is as the fixture left it, however long the tests take."""
    db, analyzed = stocked
    tables = await db.fetch(
        "SELECT relname, reltuples, reloptions FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    assert all("autovacuum_enabled=off" in (row["reloptions"] or ()) for row in tables)
    assert any(row["reltuples"] > 0 for row in tables) == analyzed
