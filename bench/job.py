"""What a client is asked to send, and what came of it; `load` and `wrk` both run it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle

import msgspec

HEAD = (
    b"POST %b HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
GET = b"GET %b HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\n\r\n"


class Target(msgspec.Struct, frozen=True):
    """A server and the token to send."""

    port: int
    token: str

    def post(self, path: str, body: object) -> bytes:
        """One request, ready to send."""
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return HEAD % (path.encode(), self.token.encode(), len(raw), raw)

    def get(self, path: str) -> bytes:
        """One read, ready to send."""
        return GET % (path.encode(), self.token.encode())


class Follow(msgspec.Struct, frozen=True):
    """What a connection sends right after an answer: `make(body)` gives it, or None when there is nothing to follow.

    `expect` is what the answer to it must hold, as in a Job.
    """

    make: Callable[[bytes], bytes | None]
    expect: tuple[bytes, int] | None = None
    then: "Follow | None" = None


class Job(msgspec.Struct, frozen=True):
    """Requests for `connections` keep-alive connections, each waiting for its answer before it sends the next.

    `requests` are sent once each, in order, or over and over when `again`; the job ends with them, or after `seconds`.
    An answer is an error unless it is 2xx and, where `expect` is given, holds that text that many times. `then` is what
    follows each answer on the same connection, and counts as a request of its own. Connections are dealt out over
    `port` and the ports of `beside`, servers of the same store.
    """

    port: int
    requests: Sequence[bytes]
    connections: int = 64
    seconds: float = 3.0
    again: bool = False
    expect: tuple[bytes, int] | None = None
    then: Follow | None = None
    beside: Sequence[int] = ()

    def stream(self) -> Iterator[bytes]:
        """The requests in the order in which they are sent."""
        return cycle(self.requests) if self.again else iter(self.requests)


class Outcome(msgspec.Struct):
    """What was answered: how many, in what time (seconds), how fast (milliseconds), how many of them wrongly.

    `bodies` are the answers of a job that was asked to keep them; `ran_out`: the requests ended before the time. `p95`
    is told by the client in Python only.
    """

    requests: int
    seconds: float
    p50: float
    p99: float
    errors: int = 0
    said: str = ""
    bodies: list[bytes] = []
    ran_out: bool = False
    p95: float = 0.0

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds if self.seconds else 0.0


def percentile(values: Iterable[float], share: float) -> float:
    """The value that `share` of `values` do not exceed; 0 when there are none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))] if ranked else 0.0
