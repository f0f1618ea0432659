"""Commands that act on a running server speak to it over HTTP, with a token, as anybody would."""

import contextlib
import dataclasses
import http.client
import json
import ssl
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

from cyclopts import Group, Parameter

from backends.new_file import new_file
from service.cli.ended import through_the_door
from service.cli.output import print_document
from service.cli.refused import Refused

GROUP = Group("Server", sort_key=1)
URL = "http://127.0.0.1:7400"
SECONDS = 30
DOWNLOAD_SECONDS, CHUNK = 3_600, 65_536
NDJSON = "application/x-ndjson"
UNSAID = {"RemoteDisconnected": "it hung up", "TimeoutError": "not in time", "BadStatusLine": "it speaks no HTTP",
          "IncompleteRead": "it cut its answer off"}  # fmt: skip
"""Errors that have no words of their own."""


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server and the token to speak to it with."""

    url: Annotated[str, Parameter(group=GROUP, env_var="HOLDFAST_URL", help="Where the server answers.")] = URL
    token: Annotated[
        str | None, Parameter(group=GROUP, env_var="HOLDFAST_TOKEN", help="The token; better in the environment.")
    ] = None
    json: Annotated[bool, Parameter(group=GROUP, negative=(), help="Print the server's answer as JSON.")] = False

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON of a request that the server grants; `Refused` with its own sentence when it does not. `body` is
        JSON already where it is bytes."""
        given = {name: value for name, value in query.items() if value is not None}
        status, raw = self._send(method, path + (f"?{urlencode(given)}" if given else ""), body)
        answer = parsed(self.url, status, raw)
        if status >= 300:
            raise Refused(said(status, answer))
        return answer

    def download(self, path: str, output: Path | None, headers: Mapping[str, str] | None = None) -> None:
        """Write a streamed answer to a new file, which is there whole or not at all, or to the terminal."""
        parts = self._streamed(path, headers or {})
        if output is None:
            sys.stdout.flush()
            sys.stdout.buffer.writelines(parts)
            return
        try:
            with through_the_door(), new_file(output) as part, part.open("wb") as file:
                file.writelines(parts)
        except FileExistsError:
            raise Refused(f"{output} exists already; give another path", 2) from None

    def _streamed(self, path: str, headers: Mapping[str, str]) -> Iterator[bytes]:
        with contextlib.closing(self._connection(DOWNLOAD_SECONDS)) as connection:
            with answering(self.url):
                answer = self._request(connection, "GET", path, None, headers)
                refusal = answer.read() if answer.status >= 300 else None
            if refusal is not None:
                raise Refused(said(answer.status, parsed(self.url, answer.status, refusal)))
            if answer.headers.get_content_type() != NDJSON:
                raise Refused(f"{self.url} answered with something that is no export; is it a Holdfast server?")
            left = answer.length
            try:
                while part := answer.read(CHUNK):
                    left = None if left is None else left - len(part)
                    yield part
            except (OSError, http.client.HTTPException):
                left = -1
            if left:
                raise Refused("the server cut its answer off; see its log, and ask again")

    def pages(self, path: str, **query: Any) -> list[Any]:
        """Every item of a list."""
        page = self.ask("GET", path, **query)
        items = list(page["items"])
        while page["next_cursor"]:
            page = self.ask("GET", path, cursor=page["next_cursor"], **query)
            items += page["items"]
        return items

    def _send(self, method: str, target: str, body: Any) -> tuple[int, bytes]:
        with answering(self.url), contextlib.closing(self._connection(SECONDS)) as connection:
            given = body if body is None or isinstance(body, bytes) else json.dumps(body)
            answer = self._request(connection, method, target, given, {})
            return answer.status, answer.read()

    def _request(
        self, connection: http.client.HTTPConnection, method: str, target: str, body: Any, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        if not self.token:
            raise Refused("no token was given; set HOLDFAST_TOKEN or give --token", 2)
        own = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        connection.request(method, target, body, {**own, **headers})
        return connection.getresponse()

    def _connection(self, seconds: int) -> http.client.HTTPConnection:
        kinds: dict[str, type[http.client.HTTPConnection]]
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        try:
            parts = urlsplit(self.url)
            if parts.path.strip("/") or parts.query:
                raise ValueError
            return kinds[parts.scheme](parts.hostname or "", parts.port, timeout=seconds)
        except (KeyError, ValueError):
            raise Refused(
                f"{self.url!r} is not a URL of a server; it reads http://host:port or https://host", 2
            ) from None


@contextlib.contextmanager
def answering(url: str) -> Iterator[None]:
    """What goes wrong on the way to a server, in one sentence."""
    try:
        yield
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or str(error.reason or error).lower().replace("_", " ")
        todo = "name the authority of its certificate in SSL_CERT_FILE, or see whether --url is to begin with http:"
        raise Refused(f"{url} is not spoken to over TLS ({why}); {todo}") from None
    except (OSError, http.client.HTTPException) as error:
        name = type(error).__name__
        why = getattr(error, "strerror", None) or UNSAID.get(name, name)
        raise Refused(f"no server answers at {url} ({why}); start `holdfast serve` or give --url") from None
    except (ValueError, UnicodeError):
        raise Refused("the token or the path holds characters that HTTP cannot carry; copy it whole", 2) from None


Target = Annotated[Server, Parameter(name="*")]
SERVER = Server()


class Told(dict[str, Any]):
    """An object as a server told it; what it lacks is said, for then somebody else may have told it."""

    def __missing__(self, name: str) -> Any:
        raise Refused(f"the server answered without {name!r}; is it a Holdfast server, of this version?")


def parsed(url: str, status: int, raw: bytes) -> Told:
    """The JSON of an answer, always an object."""
    try:
        found = json.loads(raw, object_hook=Told)
    except ValueError:
        raise Refused(f"{url} answered {status} with something that is not JSON; is it a Holdfast server?") from None
    if not isinstance(found, Told):
        raise Refused(f"{url} answered {status} with JSON that is no object; is it a Holdfast server?")
    return found


def print_json(answer: Any) -> None:
    """The server's answer, for programs; what a terminal would obey instead of showing is escaped."""
    text = json.dumps(answer, indent=2, ensure_ascii=False)
    plain = (one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)
    print_document((text if text.replace("\n", "").isprintable() else "".join(plain)) + "\n")


def said(status: int, problem: Told) -> str:
    """A problem document as one line, its errors listed after it."""
    from service.cli.table import plain

    if "detail" not in problem:
        return f"the server answered {status}"
    errors = [f"{one['pointer']}: {one['detail']}" for one in problem.get("errors", ())]
    return "\n  - ".join(map(plain, [f"{problem['detail']} ({problem.get('code', status)})", *errors]))
