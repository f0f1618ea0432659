"""The engines: where a throw-away store comes from."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from bench import postgres


class Engine(msgspec.Struct):
    """An engine. `store()` gives the URL of an empty store, gone at the end; `postmaster` is the database's process."""

    name: str
    store: Callable[[], AbstractContextManager[str]]
    version: str = ""
    postmaster: int | None = None


@contextlib.contextmanager
def sqlite_file() -> Iterator[str]:
    """A SQLite file of its own."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        yield f"sqlite:///{Path(folder, 'bench.db')}"


@contextlib.contextmanager
def opened(name: str) -> Iterator[Engine]:
    """The engine `name`, its server started if it needs one."""
    if name == "sqlite":
        import apsw

        yield Engine("sqlite", sqlite_file, f"SQLite {apsw.sqlite_lib_version()}, synchronous=FULL")
        return
    import asyncio

    with postgres.server() as url:
        facts = asyncio.run(postgres.facts(url))
        said = f"Postgres {facts['server_version']}, " + ", ".join(f"{name}={facts[name]}" for name in postgres.DURABLE)
        pid = int(facts["postmaster"]) if facts["postmaster"] else None
        yield Engine("postgres", lambda: postgres.database(url), said, pid)
