"""What a database must be like to be served, whoever set it up, and the sentence that is said where it is not.

The odd thing: `"$user"`, which stands first in everybody's `search_path`, is another schema under each role, and every
transaction takes a role (`postgres_fence.py`). So the schema is looked up once, as who logged in, and then named.
"""

import ssl
from typing import Any

import asyncpg

from backends.errors import Unavailable, of_the_system

HOME = """
SELECT coalesce(
  (SELECT s.name
     FROM unnest(current_schemas(false)) WITH ORDINALITY AS s (name, place)
     JOIN pg_namespace n ON n.nspname = s.name
     JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'schema_migrations'
    WHERE (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname IN ('number', 'checksum')) = 2
    ORDER BY s.place LIMIT 1),
  current_schema())
"""
"""The schema of the store: of those in the path the first that has one, else the first, where it will be made."""
ABOUT = f"SELECT current_setting('server_encoding'), quote_ident(({HOME})::text)"
UNBOUND = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'"
"""Postgres has that setting from version 17 on; one that it does not know cannot be asked for at the start."""
ENCODINGS = ("UTF8", "SQL_ASCII")
"""Those that hold every text; the second keeps its bytes as they come."""


async def stay(db: Any) -> None:
    """Have a new session look for tables in the store's schema alone, under whichever role, and end no transaction."""
    await db.execute(f"SELECT set_config('search_path', quote_ident(({HOME})::text), false), ({UNBOUND})")


async def schema_of(db: Any) -> str:
    """The store's schema as SQL has it. Raises `Unavailable` for a database that cannot be served, and says why."""
    encoding, schema = await db.fetchrow(ABOUT)
    if encoding not in ENCODINGS:
        raise Unavailable(
            f"the database is encoded in {encoding}, which has not every letter; make one with"
            " CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
    if schema is None:
        raise Unavailable(
            "the search_path names no schema that this user may use; make one, or give the role another path with"
            " ALTER ROLE … SET search_path"
        )
    return str(schema)


def explained(error: Exception) -> str:
    """What to do about a connection that was not had; nothing of the driver's text, which may hold parts of the URL."""
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError | asyncpg.InsufficientPrivilegeError):
        return "Postgres does not let this user in; check the name and the password, and its pg_hba.conf"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return "Postgres has no such database; check its name, or make it"
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return "Postgres has no connection left; raise its max_connections, or lower postgres_connections_max"
    if isinstance(error, asyncpg.ObjectNotInPrerequisiteStateError):
        return "the database takes no new connections; let it with ALTER DATABASE … ALLOW_CONNECTIONS true"
    if isinstance(error, asyncpg.CannotConnectNowError):
        return "Postgres is starting or stopping; try again when it is up"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return (
            "Postgres takes no writes: it is a standby, or default_transaction_read_only is on; name the primary, or"
            " turn that off"
        )
    if isinstance(error, asyncpg.UndefinedObjectError):
        return "Postgres does not know an option of the URL; leave those that are other drivers' out"
    if isinstance(error, ConnectionError) and "SSL" in str(error):
        return "Postgres does not speak TLS, which the URL's sslmode asks for; turn it on there, or ask for less"
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return f"the certificate of Postgres is not accepted ({why}); check the URL's host and its sslrootcert"
    if isinstance(error, asyncpg.ClientConfigurationError) and "root certificate file" in str(error):
        return "there is no root certificate to judge Postgres by; name its file in the URL's sslrootcert"
    if malformed(error):
        return "the URL of Postgres cannot be read; check its host, port and options"
    return f"Postgres cannot be reached; check the address, the database and the password{by_the_system(error)}"


def malformed(error: Exception) -> bool:
    """Whether the URL itself is wrong; the error's text may hold parts of it."""
    return isinstance(error, ValueError) and not isinstance(error, OSError)


def by_the_system(error: Exception) -> str:
    """What the system calls it, in parentheses; nothing where it has no word for it."""
    if isinstance(error, TimeoutError):
        return " (no answer in time)"
    why = None if isinstance(error, ssl.SSLError) else of_the_system(error)
    return "" if why is None else f" ({why})"
