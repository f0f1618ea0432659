"""How workers are killed at a place that can be named: the n-th step of what they say to the service.

A step is a moment around a request: before it is sent, after it is sent (nobody will read the answer), after the answer
was read (nobody will act on it). What an activity does in the world lies between two of them.
"""

import http.client
import os
import signal
import threading
from typing import Any

from workflow.client import Client


class Life:
    """So many steps, shared by all connections of a process; then SIGKILL. Zero is for ever."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self._one = threading.Lock()

    def step(self) -> None:
        """One less."""
        with self._one:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Mortal(Client):
    """A client that its life may end with at any step."""

    def __init__(self, url: str, token: str, life: Life) -> None:
        super().__init__(url, token)
        self.life = life

    def _ask(self, method: str, path: str, body: Any) -> http.client.HTTPConnection:
        self.life.step()
        asked = super()._ask(method, path, body)
        self.life.step()
        return asked

    def _hear(self, asked: http.client.HTTPConnection) -> tuple[int, Any]:
        found = super()._hear(asked)
        self.life.step()
        return found
