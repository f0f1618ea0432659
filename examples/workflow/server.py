"""A server of the example's own: `python -m service serve` on a free port, stopped at the end."""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from workflow.client import Client, Refused

ROOT = Path(__file__).parents[2]
TOKEN, URL = re.compile(r"holds_\w+"), re.compile(r"https?://\S+")


class Access(NamedTuple):
    """Where the service is, and an owner's (or developer's) token for it."""

    url: str
    token: str


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What was asked for: an example's own options, and those that every example has."""
    parser.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help="give up after so long")
    parser.add_argument("--url", default=os.environ.get("HOLDFAST_URL"), help="a running server")
    parser.add_argument("--token", default=os.environ.get("HOLDFAST_TOKEN"), help="an owner's token of a tenant")
    parser.add_argument("--database-url", help="where the example's own server keeps its state")
    options = parser.parse_args()
    if options.url and not options.token:
        parser.error("--url needs --token (or HOLDFAST_TOKEN)")
    return options


def ended(main: Callable[[], int]) -> int:
    """What an example comes to, its exit code: SIGTERM ends it as Ctrl-C does, with its server and its workers, and
    what is not there or not allowed is one line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return main()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        print(f"{error.filename or 'the server'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return 1


@contextlib.contextmanager
def access(options: argparse.Namespace) -> Iterator[Access]:
    """The server that was named by `--url`, or one of our own."""
    if options.url:
        yield Access(options.url, options.token)
    else:
        with own_server(options.database_url, options.token) as found:
            yield found


@contextlib.contextmanager
def own_server(database_url: str | None, token: str | None) -> Iterator[Access]:
    """Serve from `database_url`, else from a SQLite file that goes with us; with an owner's token of `default`."""
    with tempfile.TemporaryDirectory(prefix="holdfast-example-") as folder:
        store = database_url or f"sqlite:///{folder}/holdfast.db"
        command = [sys.executable, "-m", "service", "serve", "--port", "0", "--database-url", store]
        environ = os.environ | {"PYTHONPATH": str(ROOT), "HOLDFAST__LOG_LEVEL": "warning"}
        with subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True) as server:
            try:
                url, admin = listening(server)
                yield Access(url, token or owner(url, admin))
            finally:
                server.terminate()
                server.wait(30)


def listening(server: "subprocess.Popen[str]") -> tuple[str, str | None]:
    """The URL that the server prints once it is ready, and the first token if this store never had one."""
    assert server.stdout is not None
    admin = None
    for line in server.stdout:
        if found := TOKEN.search(line):
            admin = found.group()
        if found := URL.search(line):
            return found.group(), admin
    raise SystemExit("the server did not start; it said why above")


def owner(url: str, admin: str | None) -> str:
    """An owner's token, minted by the administrator of a fresh store."""
    if admin is None:
        raise SystemExit("the store has an administrator already: give --token with an owner's token of a tenant")
    client = Client(url, admin)
    try:
        body = {"name": "example", "role": "owner", "tenant_id": "default", "expires_in_days": 1}
        return str(client.post("/v1/tokens", body)["secret"])
    finally:
        client.close()
