"""Holdfast over HTTP in the standard library alone: one connection kept open, every refusal an exception."""

import http.client
import json
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

PATIENCE = 10.0


class Refused(Exception):
    """The service said no; `code` says which no, `problem` has the facts."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(f"{problem.get('code')}: {problem.get('detail')}")
        self.problem = problem
        self.code = str(problem.get("code"))


class Client:
    """One connection. Belongs to one thread."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token
        self._open: http.client.HTTPConnection | None = None

    def get(self, path: str, **query: Any) -> Any:
        """The JSON at a path."""
        given = {name: value for name, value in query.items() if value is not None}
        return self.send("GET", path + (f"?{urlencode(given)}" if given else ""))

    def post(self, path: str, body: Any = None) -> Any:
        """The answer to a command."""
        return self.send("POST", path, {} if body is None else body)

    def put(self, path: str, body: Any) -> Any:
        """The answer to a document."""
        return self.send("PUT", path, body)

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """One request, repeated word for word while the network or the server is away.

        That is safe where this engine does it: a settle under the same lease, told twice, is done once and answered
        twice; executions have ids of our choosing; a claim that was lost on the way back lapses by itself.
        """
        end = time.monotonic() + PATIENCE
        while True:
            try:
                status, answer = self._once(method, path, body)
            except (OSError, http.client.HTTPException):
                self.close()
                if time.monotonic() > end:
                    raise
            else:
                if status < 300:
                    return answer
                if status not in (429, 503) or time.monotonic() > end:
                    raise Refused(answer)
            time.sleep(0.1)

    def pages(self, path: str, **query: Any) -> list[Any]:
        """Every item of a list."""
        items, cursor = [], None
        while True:
            page = self.get(path, limit=1000, cursor=cursor, **query)
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items

    def _once(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        return self._hear(self._ask(method, path, body))

    def _ask(self, method: str, path: str, body: Any) -> http.client.HTTPConnection:
        """Send a request."""
        if self._open is None:
            parts = urlsplit(self.url)
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            self._open = kind(parts.hostname or "", parts.port, timeout=30)
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        self._open.request(method, path, None if body is None else json.dumps(body), headers)
        return self._open

    def _hear(self, asked: http.client.HTTPConnection) -> tuple[int, Any]:
        """Read its answer."""
        answer = asked.getresponse()
        return answer.status, json.loads(answer.read() or b"null")

    def close(self) -> None:
        """Let go of the connection; the next request opens another."""
        if self._open is not None:
            self._open.close()
            self._open = None
