"""HTTPS by the server itself, with a certificate that the test makes."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from service.main import patient
from tests.cli.conftest import Command, holdfast
from tests.edge.conftest import wire
from tests.edge.test_looks import LIMITS
from tests.races.server import Server, prepared

__all__ = ["holdfast"]  # a fixture


class Secure(Server):
    """A server that speaks TLS, asked by a client that trusts its authority alone."""

    trust: ssl.SSLContext

    @property
    def base(self) -> str:
        return f"https://localhost:{self.port}"

    async def _until_ready(self) -> None:
        async with self.client() as http:
            assert (await http.get("/readyz")).status_code == 200

    def client(self) -> httpx.AsyncClient:
        """A client that checks the certificate."""
        return httpx.AsyncClient(base_url=self.base, verify=self.trust, timeout=30)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, ssl.SSLContext]:
    """A certificate for localhost and its key in files, and who trusts it."""
    authority, trust = trustme.CA(), ssl.create_default_context()
    issued = authority.issue_cert("localhost")
    authority.configure_trust(trust)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    for part in issued.cert_chain_pems:
        part.write_to_path(str(chain), append=True)
    issued.private_key_pem.write_to_path(str(key))
    return str(chain), str(key), trust


async def test_the_server_speaks_tls_and_asks_for_it_ever_after(
    fresh_url: str, tmp_path: Path, files: tuple[str, str, ssl.SSLContext]
) -> None:
    chain, key, trust = files
    await prepared(fresh_url)
    server = Secure(fresh_url, tmp_path / "log", tls_certificate_file=chain, tls_key_file=key, head_seconds_max=1)
    server.trust = trust
    await server.start()
    try:
        async with wire(server.port) as silent:
            assert await silent.to_end() == []
        async with server.client() as http:
            answer = await http.get("/healthz")
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
            large = await http.post("/v1/executions", content=b"x" * 2_000_000)
            assert large.status_code == 401
        old = ssl.create_default_context()
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with httpx.AsyncClient(base_url=server.base, verify=old) as http:
            assert (await http.get("/healthz")).status_code == 200
        async with httpx.AsyncClient(base_url=server.base) as http:
            with pytest.raises(httpx.ConnectError):
                await http.get("/healthz")
        async with httpx.AsyncClient(base_url=server.base.replace("https", "http")) as http:
            with pytest.raises(httpx.TransportError):
                await http.get("/healthz")
    finally:
        assert await server.terminate() == 0


async def test_a_handshake_has_as_long_as_a_head_and_an_end_as_long_as_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []

    async def create_server(*words: Any, **more: Any) -> None:
        made.append(more)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(type(loop), "create_server", create_server)
    with patient(LIMITS):
        await loop.create_server(Any, "h", 1, ssl=None)
        await loop.create_server(Any, "h", 1, ssl=ssl.create_default_context())
    await loop.create_server(Any, "h", 1)
    plain, tls, after = made
    assert plain == {"ssl": None} and after == {}
    assert tls["ssl_handshake_timeout"] == LIMITS.head_seconds and tls["ssl_shutdown_timeout"] > 3_600


def test_a_certificate_without_its_key_is_no_setting(holdfast: Command) -> None:
    done = holdfast("serve", "--port", "0", "--tls-certificate-file", "chain.pem")
    assert (done.returncode, done.stdout) == (2, "")
    assert "tls_certificate_file and tls_key_file: give both" in done.stderr


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_that_cannot_be_used_stops_the_start(
    holdfast: Command, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "chain.pem").write_text(content)
        (tmp_path / "key.pem").write_text(content)
    words = ("--tls-certificate-file", "chain.pem", "--tls-key-file", "key.pem")
    done = holdfast("serve", "--port", "0", *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("holdfast: chain.pem and key.pem: ") and done.stderr.count("\n") == 1


def test_the_url_that_serve_says_is_https(files: tuple[str, str, ssl.SSLContext]) -> None:
    from service.cli.serve import url
    from service.settings import Settings

    chain, key, _ = files
    assert url(Settings(tls_certificate_file=chain, tls_key_file=key), 7400) == "https://127.0.0.1:7400"
    assert url(Settings(), 7400) == "http://127.0.0.1:7400"
