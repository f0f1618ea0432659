"""A Postgres as somebody has it: what was set there for others changes nothing, or is told at the start."""

import errno
import re
import socket
import ssl
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from backends import connect
from backends.errors import StoreError, Unavailable
from backends.postgres_fit import explained
from backends.protocol import Tx
from tests.conformance.jobs import adding, exists, job
from tests.conftest import drop_database, new_database, serving, with_database

SET = {
    "default_transaction_isolation": "'repeatable read'", "statement_timeout": "1", "lock_timeout": "1",
    "idle_session_timeout": "1", "idle_in_transaction_session_timeout": "1", "row_security": "off",
    "client_encoding": "LATIN1", "standard_conforming_strings": "off", "datestyle": "'SQL, DMY'",
    "timezone": "'Asia/Kathmandu'", "bytea_output": "escape", "array_nulls": "off",
}  # fmt: skip
LISTED = (
    "SELECT concat_ws(' ', current_setting('transaction_isolation'), current_setting('statement_timeout'),"
    " current_setting('idle_in_transaction_session_timeout'))"
)
BOUND = "SELECT current_setting('transaction_timeout', true)"
REFUSED = {
    "ALTER DATABASE {} SET search_path = nowhere": "the search_path names no schema that this user may use; make one",
    "ALTER DATABASE {} SET default_transaction_read_only = on": "takes no writes: it is a standby, or default_tr",
    "CREATE TABLE schema_migrations (version TEXT)": "schema_migrations is another program's; give Holdfast a schema",
    "CREATE TABLE events (id BIGINT)": '"events" already exists; give Holdfast a schema or a database of its own',
}


@pytest.fixture
async def database(postgres_server: str) -> AsyncIterator[tuple[str, Any]]:
    """The URL of a database without anything in it, and a connection of whom it belongs to."""
    url = await new_database(postgres_server)
    db = await asyncpg.connect(url)
    yield url, db
    await db.close()
    await drop_database(postgres_server, url)


async def say(db: Any, command: str) -> None:
    """Run a command on the database; `{}` is its name."""
    await db.execute(command.format(await db.fetchval("SELECT quote_ident(current_database())")))


async def test_what_is_set_for_others_does_not_reach_the_service(database: tuple[str, Any]) -> None:
    url, db = database
    newer = {"transaction_timeout": "200"} if db.get_server_version() >= (17,) else {}
    for name, value in (SET | newer).items():
        await say(db, f"ALTER DATABASE {{}} SET {name} = {value}")
    async with serving(url) as service:
        api = await service.tenant()
        assert await service.services.backend.read(lambda tx: tx._db.fetchval(BOUND)) in ("0", None)
        text = {"note": "漢 'é' \\n"}
        started = await api.start(input=text, labels={"text": "漢'\\"})
        assert (await api.events(started["execution_id"]))[0]["body"]["input"] == text
        assert len((await api.ok("GET", "/v1/executions?status=running"))["items"]) == 1


@pytest.mark.parametrize("pooler", ["none", "transaction"])
async def test_every_transaction_reads_what_was_committed_and_runs_to_its_end(
    database: tuple[str, Any], pooler: str
) -> None:
    """Whatever is the default there: limits are counted behind a lock, by a statement that sees what others did."""
    url, db = database
    await say(db, "ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'")
    await say(db, "ALTER DATABASE {} SET statement_timeout = 50000")
    store = await connect(url, connections=2, pooler=pooler)

    async def under(tx: Tx) -> str:
        return str(await tx._db.fetchval(LISTED))  # type: ignore[attr-defined]

    try:
        await store.migrate()
        assert await store.write(under, tenants=["t"]) == "read committed 0 30s"
        assert await store.read(under, tenants=["t"]) == "read committed 0 30s"
        assert await store.read(under, scan=True, tenants=["t"]) == "repeatable read 0 30s"
        store.subscribe(lambda channel, count: None)
        assert (store._listener._task is None) == (pooler == "transaction"), "what a session hears is not for us there"  # type: ignore[attr-defined]
    finally:
        await store.close()


@pytest.mark.parametrize("pooler", ["none", "transaction"])
@pytest.mark.parametrize("first", [True, False], ids=["in its own schema", "made before that schema was"])
async def test_tables_are_found_where_they_were_made_under_whichever_role(
    database: tuple[str, Any], pooler: str, first: bool
) -> None:
    """`"$user"` is another schema under each role; and a schema that comes later is not taken for the store's."""
    url, db = database
    makes = 'CREATE SCHEMA "{}"'.format(await db.fetchval("SELECT current_user"))
    if first:
        await db.execute(makes)
    store = await connect(url, connections=2, pooler=pooler)
    await store.migrate()
    await store.close()
    if not first:
        await db.execute(makes)
    store = await connect(url, connections=2, pooler=pooler)
    try:
        assert await store.migrate() == 0
        await store.check()
        await store.write(adding(job("t", "a")), tenants=["t"])
        assert await exists(store, "t", "a")
    finally:
        await store.close()


@pytest.mark.parametrize(("command", "said"), REFUSED.items(), ids=["path", "read-only", "ledger", "tables"])
async def test_a_database_that_cannot_be_served_is_refused_in_one_sentence(
    database: tuple[str, Any], command: str, said: str
) -> None:
    url, db = database
    await say(db, command)
    with pytest.raises(StoreError, match=re.escape(said)):
        async with serving(url):
            pass


async def test_a_database_that_has_not_every_letter_is_refused(postgres_server: str) -> None:
    admin = await asyncpg.connect(postgres_server)
    name = f"latin_{uuid.uuid4().hex}"
    await admin.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(Unavailable, match="is encoded in LATIN1, which has not every letter; make one with"):
            await connect(with_database(postgres_server, name))
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


def not_verified(why: str) -> ssl.SSLCertVerificationError:
    """What TLS raises for a certificate that it does not take."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed: x")
    error.verify_message = why
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (asyncpg.InvalidPasswordError("password authentication failed for user x"), "does not let this user in;"),
        (asyncpg.InvalidCatalogNameError("database x does not exist"), "has no such database;"),
        (asyncpg.TooManyConnectionsError("sorry, too many clients"), "no connection left; raise its max_connections"),
        (asyncpg.ObjectNotInPrerequisiteStateError("database x is not currently accepting"), "ALLOW_CONNECTIONS true"),
        (asyncpg.CannotConnectNowError("the database system is starting up"), "is starting or stopping; try again"),
        (asyncpg.UndefinedObjectError("unrecognized configuration parameter x"), "does not know an option of the URL;"),
        (ConnectionError("PostgreSQL server at x rejected SSL upgrade"), "does not speak TLS,"),
        (asyncpg.InsufficientPrivilegeError("permission denied for database x"), "does not let this user in;"),
        (ConnectionRefusedError("x"), "cannot be reached; check the address"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ( x)"), "password (Connection refused)"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "password (Name or service not known)"),
        (TimeoutError(), "password (no answer in time)"),
        (not_verified("self-signed certificate"), "certificate of Postgres is not accepted (self-signed certificate);"),
        (asyncpg.ClientConfigurationError('root certificate file " x" does not exist'), "in the URL's sslrootcert"),
        (ValueError("port x is none"), "the URL of Postgres cannot be read;"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_connection_that_is_not_had_is_explained_without_the_drivers_text(error: Exception, said: str) -> None:
    assert said in explained(error)
    assert " x" not in explained(error)


async def test_a_login_that_is_let_in_no_more_makes_the_store_unavailable_and_the_log_says_why(
    database: tuple[str, Any],
) -> None:
    """A password that was changed, a role that was locked: callers are to repeat, for it can be put right."""
    url, db = database
    login = f"login_{uuid.uuid4().hex}"
    await db.execute(f"CREATE ROLE {login} LOGIN SUPERUSER")
    try:
        async with serving(re.sub(r"//[^@/]*@", f"//{login}@", url), sweep=False) as service:
            api = await service.tenant()
            await db.execute(f"ALTER ROLE {login} NOLOGIN")
            await db.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{login}'")
            with capture_logs() as lines:
                await api.refused("GET", "/v1/executions", "store/unavailable")
                await api.refused("GET", "/readyz", "store/unavailable")
                await api.refused("POST", "/v1/executions", "store/unavailable", json={"workflow_type": "w"})
            assert all("does not let this user in" in line["error"] for line in lines if line["log_level"] == "warning")
            assert {line["event"] for line in lines} >= {"the store refused"}
            await db.execute(f"ALTER ROLE {login} LOGIN")
            assert (await api.start())["status"]
    finally:
        await db.execute(f"DROP OWNED BY {login}; DROP ROLE {login}")
