"""`holdfast serve`: the first token, once; the drain; how much memory an idle server takes."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from backends.sqlite_file import open_to_read
from service.tokens.secret import mint
from tests.cli.conftest import SECONDS, Command, Running, headers, start

IDLE_MIB = 120


def test_a_new_store_prints_one_working_token_and_never_again(tmp_path: Path) -> None:
    with start(tmp_path, "serve", "--log-level", "debug", "--log-format", "json") as first:
        [token] = first.tokens
        assert first.ask(token, "GET", "/v1/tenants")[0] == 200
        assert token not in first.logged
        assert first.stop() == 0
    with start(tmp_path, "serve", "--sweep", "false") as second:  # whoever sweeps has a line a day to say
        assert second.tokens == []
        assert second.ask(token, "GET", "/v1/tenants")[0] == 200
        assert second.stop() == 0
        assert second.logged == ""


def test_a_token_from_a_file_is_stored_and_not_shown(tmp_path: Path) -> None:
    text, _ = mint("system")
    (tmp_path / "secret").write_text(text + "\n")
    with start(tmp_path, "serve", "--bootstrap-token-file", "secret") as server:
        assert server.ask(text, "GET", "/v1/tenants")[0] == 200
        assert server.tokens == []


@pytest.mark.parametrize("content", [None, "not a token", mint("tenant")[0]], ids=["missing", "no token", "a tenant's"])
def test_a_token_file_that_cannot_be_used_stops_the_start(
    holdfast: Command, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "secret").write_text(content)
    done = holdfast("serve", "--port", "0", "--bootstrap-token-file", "secret")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("holdfast: bootstrap_token_file secret: ") and done.stderr.count("\n") == 1
    assert content is None or content not in done.stderr


def test_a_token_in_place_of_its_files_name_is_not_repeated(holdfast: Command) -> None:
    text, parts = mint("system")
    done = holdfast("serve", "--port", "0", "--bootstrap-token-file", text)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"bootstrap_token_file holds_{parts.id}_[masked]: cannot be read" in done.stderr
    for format in ("table", "toml", "json"):
        assert parts.secret not in holdfast("config", "show", "--format", format, "--bootstrap-token-file", text).stdout


def test_a_token_file_without_end_is_not_read_whole(holdfast: Command, tmp_path: Path) -> None:
    """What is named by mistake may be a device, or larger than the memory; this one has holes and takes no room."""
    with (tmp_path / "secret").open("wb") as file:
        file.truncate(1 << 43)
    done = holdfast("serve", "--port", "0", "--bootstrap-token-file", "secret")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("holdfast: bootstrap_token_file secret: does not hold a whole system token")


def test_init_prints_the_token_that_serve_then_accepts(holdfast: Command, tmp_path: Path) -> None:
    made = holdfast("init")
    again = holdfast("init")
    assert (made.returncode, again.returncode) == (0, 0)
    assert "holds_" not in again.stdout
    token = next(word for word in made.stdout.split() if word.startswith("holds_"))
    with start(tmp_path, "serve") as server:
        assert server.tokens == []
        assert server.ask(token, "GET", "/v1/tenants")[0] == 200


def test_whoever_has_the_store_in_hand_can_mint_another_administrator(holdfast: Command, tmp_path: Path) -> None:
    assert holdfast("token", "bootstrap").returncode == 1  # there is no schema yet
    assert holdfast("migrate").stdout.startswith("Applied ")
    assert holdfast("migrate").stdout == "The schema is up to date.\n"
    done = holdfast("token", "bootstrap", "--name", "second")
    token = next(word for word in done.stdout.split() if word.startswith("holds_"))
    with start(tmp_path, "serve") as server:
        assert server.ask(token, "GET", "/v1/tokens/self")[1]["name"] == "second"


@pytest.mark.parametrize(
    "unfit",
    [["--days", "0"], ["--days", "-5"], ["--days", "3651"], ["--days", "9" * 18], ["--days", "5", "--never-expires"],
     ["--name", ""], ["--name", "x" * 129]],
)  # fmt: skip
def test_what_no_server_would_mint_is_not_minted_with_the_store_in_hand(holdfast: Command, unfit: list[str]) -> None:
    assert holdfast("init").returncode == 0
    done = holdfast("token", "bootstrap", *unfit)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("holdfast: ") and done.stderr.count("\n") == 1, done.stderr
    assert "admin tokens: 1" in holdfast("doctor").stdout


@pytest.mark.parametrize("unfit", [["--days", "31"], ["--never-expires"]])
def test_a_policy_bounds_what_is_minted_with_the_store_in_hand(
    holdfast: Command, tmp_path: Path, unfit: list[str]
) -> None:
    (tmp_path / "holdfast.toml").write_text("token_days_max = 30")
    first, second = holdfast("init"), holdfast("token", "bootstrap")
    assert (first.returncode, second.returncode) == (0, 0)
    done = holdfast("token", "bootstrap", *unfit)
    assert (done.returncode, done.stdout) == (2, "")
    assert "a token may live 30 days here (token_days_max)" in done.stderr and done.stderr.count("\n") == 1
    with contextlib.closing(open_to_read(tmp_path / "holdfast.db")) as store:
        lives = store.execute("SELECT expires_at - created_at FROM tokens").fetchall()
        assert lives == [(30 * 86_400_000,)] * 2


def test_sigterm_lets_requests_finish_answers_long_polls_and_exits_with_0(tmp_path: Path) -> None:
    with start(tmp_path, "serve") as server:
        [admin] = server.tokens
        body = {"name": "drain", "role": "owner", "tenant_id": "default"}
        owner = server.ask(admin, "POST", "/v1/tokens", body)[1]["secret"]
        with contextlib.closing(server.connect()) as polling, half_sent(server, owner) as (sending, rest):
            claim = {"worker_id": "w", "queues": ["q"], "wait_ms": 60_000}
            polling.request("POST", "/v1/work-items:claim", json.dumps(claim), headers(owner))
            server.process.terminate()
            polled = polling.getresponse()
            assert (polled.status, json.loads(polled.read())) == (200, {"items": []})
            sending.sendall(rest)
            assert answer_to(sending).startswith(b"HTTP/1.1 201")
        assert server.process.wait(SECONDS) == 0
        assert "Traceback" not in server.logged
    with contextlib.closing(open_to_read(tmp_path / "holdfast.db")) as store:
        assert store.execute("SELECT id FROM executions").fetchall() == [("drained",)]


@contextlib.contextmanager
def half_sent(server: Running, token: str) -> Iterator[tuple[socket.socket, bytes]]:
    """A request that the server has begun to handle, and the rest of its body."""
    body = json.dumps({"workflow_id": "wf", "execution_id": "drained"}).encode()
    lines = ["POST /v1/executions HTTP/1.1", "host: localhost", f"content-length: {len(body)}", "expect: 100-continue"]
    lines += [f"{name}: {value}" for name, value in headers(token).items()]
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port or 0), timeout=SECONDS) as sending:
        sending.sendall("\r\n".join([*lines, "", ""]).encode())
        assert answer_to(sending).startswith(b"HTTP/1.1 100")  # the handler waits for the body
        sending.sendall(body[:5])
        yield sending, body[5:]


def answer_to(sending: socket.socket) -> bytes:
    """The head of what the server answers."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = sending.recv(4096)
        assert part, head
        head += part
    return head


def test_an_idle_server_stays_within_its_memory(served: Running) -> None:
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    assert int(line.split()[1]) <= IDLE_MIB * 1024, line
