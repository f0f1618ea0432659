"""Commands that act on a running server speak to it over HTTP, with a token, as anybody would."""

import dataclasses
import http.client
import json
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

from cyclopts import Group, Parameter

from service.cli.refused import Refused

GROUP = Group("Server", sort_key=1)
URL = "http://127.0.0.1:7400"
SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server and the token to speak to it with."""

    url: Annotated[str, Parameter(group=GROUP, env_var="HOLDFAST_URL", help="Where the server answers.")] = URL
    token: Annotated[
        str | None, Parameter(group=GROUP, env_var="HOLDFAST_TOKEN", help="The token; better in the environment.")
    ] = None
    json: Annotated[bool, Parameter(group=GROUP, negative=(), help="Print the server's answer as JSON.")] = False

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON of a request that the server grants; `Refused` with its own sentence when it does not."""
        if not self.token:
            raise Refused("no token was given; set HOLDFAST_TOKEN or give --token", 2)
        given = {name: value for name, value in query.items() if value is not None}
        status, raw = self._send(method, path + (f"?{urlencode(given)}" if given else ""), body)
        try:
            answer = json.loads(raw)
        except ValueError:
            raise Refused(
                f"{self.url} answered {status} with something that is not JSON; is it a Holdfast server?"
            ) from None
        if status >= 300:
            raise Refused(said(status, answer))
        return answer

    def pages(self, path: str, **query: Any) -> list[Any]:
        """Every item of a list."""
        page = self.ask("GET", path, **query)
        items = list(page["items"])
        while page["next_cursor"]:
            page = self.ask("GET", path, cursor=page["next_cursor"], **query)
            items += page["items"]
        return items

    def _send(self, method: str, target: str, body: Any) -> tuple[int, bytes]:
        connection = self._connection()
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        try:
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise Refused(f"no server answers at {self.url} ({why}); start `holdfast serve` or give --url") from None
        except (ValueError, UnicodeError):
            raise Refused("the token or the path holds characters that HTTP cannot carry; copy it whole", 2) from None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        kinds: dict[str, type[http.client.HTTPConnection]]
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        try:
            parts = urlsplit(self.url)
            return kinds[parts.scheme](parts.hostname or "", parts.port, timeout=SECONDS)
        except (KeyError, ValueError):
            raise Refused(
                f"{self.url!r} is not a URL of a server; it reads http://host:port or https://host", 2
            ) from None


Target = Annotated[Server, Parameter(name="*")]
SERVER = Server()


def print_json(answer: Any) -> None:
    """The server's answer, for programs."""
    print(json.dumps(answer, indent=2, ensure_ascii=False))


def said(status: int, problem: Any) -> str:
    """A problem document as one line, its errors listed after it."""
    if not isinstance(problem, dict) or "detail" not in problem:
        return f"the server answered {status}"
    errors = "".join(f"\n  - {one['pointer']}: {one['detail']}" for one in problem.get("errors", ()))
    return f"{problem['detail']} ({problem.get('code', status)}){errors}"
