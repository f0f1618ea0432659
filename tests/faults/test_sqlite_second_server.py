"""One server a file: a second one says so and goes; when the first is killed, the next may begin."""

import asyncio
import sys
from pathlib import Path

from tests.cli.conftest import environment
from tests.races.server import ROOT, Server, http, new_tenant, prepared

PATIENCE = 30.0


async def said_by(*words: str) -> tuple[int, str]:
    """The exit code of a command and what it says on stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", *words, cwd=ROOT, env=environment(),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE):
        _, told = await process.communicate()
    assert process.returncode is not None
    return process.returncode, told.decode()


async def test_a_second_server_on_a_file_is_refused_and_the_first_goes_on_until_it_is_killed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'one.db'}"
    first, second = Server(url, tmp_path / "first.log"), Server(url, tmp_path / "second.log")
    admin = await prepared(url)
    try:
        await first.start()
        async with http(first.base, admin) as client:
            for words in (("serve", "--port", "0"), ("migrate",), ("token", "bootstrap")):
                code, said = await said_by(*words, "--database-url", url)
                assert code == 1 and said.startswith("holdfast: another process serves"), (words, said)
            token = await new_tenant(client, "acme")
        await first.kill()
        await second.start()
        async with http(second.base, token) as client:
            assert (await client.get("/v1/executions")).status_code == 200
    finally:
        await first.kill()
        await second.kill()
