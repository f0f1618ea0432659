"""The second fence: Postgres itself shows a transaction the rows of the tenants that it acts for, and no others.

Two roles that own nothing and may not log in. The app role sees the tenants that `holdfast.tenants` lists
(`{"acme"}`, the system's own as `""`; empty or missing shows nothing); the sweep role sees every tenant, for sweeps
and for finding out who asks. A connection logs in as whoever the URL names and takes one of them for each transaction,
so a statement that forgot its tenant finds no foreign row, and writes none.

The policy only filters: it is no condition that an index could serve, and counts for little in the planner's guesses,
so a statement is carried out as if it were not there. Tables are those of the migrations' text; a table that is added
later is fenced by the next `migrate`.
"""

import asyncio
import random
import re
from collections.abc import Collection
from typing import Any

import asyncpg
import msgspec

from backends import postgres_locks
from backends.erasure import keys as tables
from backends.errors import Unfenced

SAFE = re.compile(r"[A-Za-z0-9_.~-]*")
EXPRESSION = (
    "array_position((SELECT nullif(current_setting('holdfast.tenants', true), '')::text[]), tenant_id) IS NOT NULL"
)
TENANTS, EVERY = "holdfast_tenants", "holdfast_every"
"""The policies of the app role and of the sweep role."""
SET_OPTION = 160_000
"""Since this version a membership says by itself whether `SET ROLE` may use it."""
FENCE_LOCK = 7_406_712_002
RACES = 8
LOST_RACE = (
    asyncpg.InternalServerError,  # "tuple concurrently updated": what Postgres says of two grants of one role at once
    asyncpg.UniqueViolationError,
    asyncpg.DuplicateObjectError,
    asyncpg.DeadlockDetectedError,
)
LEAVE = "RESET ROLE"
"""Back to who logged in."""
STATE = """
SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity, pg_has_role($2::text, c.relowner, 'MEMBER'),
       array(SELECT p.polname || ' to ' || array_to_string(p.polroles::regrole[], ',') || ' sees ' ||
                    CASE WHEN pg_get_expr(p.polqual, p.polrelid) = 'true' THEN 'all' ELSE 'some' END
               FROM pg_policy p WHERE p.polrelid = c.oid ORDER BY 1),
       (SELECT bool_and(has_table_privilege(role, c.oid, act))
          FROM unnest(ARRAY[$2, $3::text]) AS role, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS act)
  FROM pg_class c WHERE c.oid = ANY (SELECT to_regclass(name) FROM unnest($1::text[]) AS name) ORDER BY 1
"""
OF_OTHERS = """
SELECT DISTINCT r.rolname::text FROM pg_policy p JOIN pg_roles r ON r.oid = ANY (p.polroles)
 WHERE p.polname = ANY ($1::text[]) AND r.rolname <> ALL ($2::text[])
   AND p.polrelid = ANY (SELECT to_regclass(name) FROM unnest($3::text[]) AS name) ORDER BY 1
"""
ROLE = "SELECT rolsuper OR rolbypassrls, pg_has_role(session_user, oid, $2) FROM pg_roles WHERE rolname = $1"


class Fence(msgspec.Struct, frozen=True):
    """The roles' names: `app` acts for tenants that are named, `sweep` for every tenant."""

    app: str = "holdfast_app"
    sweep: str = "holdfast_sweep"

    def scope(self, tenants: Collection[str] | None, local: str = "LOCAL ") -> str:
        """The commands that make a transaction (or with `local=""` a session) act for `tenants`, or for every one."""
        if tenants is None:
            return f"SET {local}ROLE {self.sweep}"
        return f"SET {local}ROLE {self.app}; SET {local}holdfast.tenants = '{listed(tenants)}'"

    async def raise_up(self, db: Any) -> None:
        """Make the roles, the policies and the grants that are missing; as the owner of the tables.

        Roles belong to the whole server: migrators of other databases may be making the same ones, so a lost race is
        run again.
        """
        for attempt in range(RACES):
            try:
                if await self.faults(db):
                    await self._refuse_to_replace(db)
                    await self._raise(db)
                return
            except LOST_RACE:
                if attempt == RACES - 1:
                    raise
                await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))

    async def _refuse_to_replace(self, db: Any) -> None:
        """Raise `Unfenced` where the tables are fenced for other roles: servers that act under those would find no rows
        any more, and tell callers that their tokens are revoked."""
        if others := await db.fetch(OF_OTHERS, [TENANTS, EVERY], [self.app, self.sweep], list(tables())):
            raise Unfenced(
                f"the tables are fenced for other roles: {', '.join(row[0] for row in others)}; name them in"
                " postgres_app_role and postgres_sweep_role, or, while no server runs, ALTER ROLE … RENAME TO …"
            )

    async def _raise(self, db: Any) -> None:
        async def fence() -> None:
            await db.execute("SELECT pg_advisory_xact_lock($1)", FENCE_LOCK)
            if not await self.faults(db):
                return  # another migrator of this database has been faster
            for role in (self.app, self.sweep):
                await self._make(db, role)
            schema = await db.fetchval("SELECT quote_ident(current_schema())")
            both = f"{self.app}, {self.sweep}"
            await db.execute(f"GRANT USAGE ON SCHEMA {schema} TO {both}; GRANT SELECT ON schema_migrations TO PUBLIC")
            for table in tables():
                await db.execute(
                    f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
                    f"DROP POLICY IF EXISTS {TENANTS} ON {table}; DROP POLICY IF EXISTS {EVERY} ON {table};"
                    f"CREATE POLICY {TENANTS} ON {table} TO {self.app} USING ({EXPRESSION});"
                    f"CREATE POLICY {EVERY} ON {table} TO {self.sweep} USING (true);"
                    f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {both}"
                )

        await postgres_locks.changed(db, "row level security", fence)

    async def lower(self, db: Any) -> None:
        """Let the owner of the tables see their rows, for migrations that change rows; `raise_up` follows."""
        await self._refuse_to_replace(db)
        owned = "SELECT relname FROM pg_class WHERE oid = ANY (SELECT to_regclass(n) FROM unnest($1::text[]) AS n)"

        async def let_through() -> None:
            for (table,) in await db.fetch(f"{owned} AND relforcerowsecurity", list(tables())):
                await db.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")

        await postgres_locks.changed(db, "row level security", let_through)

    async def _make(self, db: Any, role: str) -> None:
        """A role that this session may take."""
        if await db.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role) is None:
            made = f"CREATE ROLE {role} NOLOGIN NOINHERIT"
            met = "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL"  # of another database here
            await db.execute(f"DO $$ BEGIN {made}; {met}; END $$")
        membership = membership_of(db)
        if not await db.fetchval("SELECT pg_has_role(session_user, $1, $2)", role, membership):
            option = " WITH INHERIT FALSE, SET TRUE" if membership == "SET" else ""
            await db.execute(f"GRANT {role} TO CURRENT_USER{option}")

    async def refuse_holes(self, db: Any) -> None:
        """Raise `Unfenced` unless every table is fenced and this session can act under the roles that it holds back."""
        if faults := await self.faults(db):
            raise Unfenced(
                f"the database does not fence tenants: {faults[0]}; run `holdfast migrate` as the owner of the tables, "
                "see docs/operations.md, or accept it with postgres_unfenced = true"
            )

    async def faults(self, db: Any) -> list[str]:
        """What is wrong with the fence, for this session; nothing when it holds."""
        faults = []
        for role in (self.app, self.sweep):
            row = await db.fetchrow(ROLE, role, membership_of(db))
            if row is None:
                return [f"there is no role {role}"]
            if row[0]:
                faults.append(f"the role {role} may bypass row level security")
            if not row[1]:
                faults.append(f"who connects may not SET ROLE {role}")
        if await db.fetchval("SELECT pg_has_role($1, $2, 'MEMBER')", self.app, self.sweep):
            faults.append(f"the role {self.app} is a member of {self.sweep}")
        wanted = sorted([f"{EVERY} to {self.sweep} sees all", f"{TENANTS} to {self.app} sees some"])
        found = await db.fetch(STATE, list(tables()), self.app, self.sweep)
        for table, forced, owned, policies, granted in found:
            if owned:
                faults.append(f"the role {self.app} owns the table {table}")
            if not forced or policies != wanted or not granted:
                faults.append(f"the table {table} is open")
        if len(found) < len(tables()):
            faults.append("tables are missing")
        return faults


def membership_of(db: Any) -> str:
    """What `pg_has_role` calls the right to `SET ROLE`."""
    major = db.get_server_version().major
    return "SET" if major * 10_000 >= SET_OPTION else "MEMBER"


def listed(tenants: Collection[str]) -> str:
    """The value of `holdfast.tenants`. ValueError for what is no tenant's id: it stands in a command as it is."""
    for tenant in tenants:
        if not SAFE.fullmatch(tenant):
            raise ValueError(f"{tenant!r} is no tenant's id")
    quoted = [f'"{tenant}"' for tenant in sorted(tenants)]
    return "{" + ",".join(quoted) + "}"
