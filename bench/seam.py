"""The seam, counted: a backend that keeps a tally of the transactions, round trips and statements that pass through it.

Nothing of the engines is touched, so the counts are the same on every machine and on a busy one.
"""

import inspect
from collections import Counter
from collections.abc import Sequence
from typing import Any

from backends.postgres import apart
from backends.protocol import EVERY, StateBackend, Tenants, Work
from backends.statements import load, texts


class Tally:
    """Transactions that committed, statements by name, and the round trips that they are on Postgres, BEGIN and COMMIT
    included."""

    def __init__(self) -> None:
        self.commits = 0
        self.round_trips = 0
        self.statements: Counter[str] = Counter()

    def clear(self) -> None:
        """Begin again."""
        self.commits = self.round_trips = 0
        self.statements.clear()


class CountedTx:
    """A transaction whose calls are counted, whatever methods it has."""

    def __init__(self, tx: Any, tally: Tally) -> None:
        self._tx, self._tally = tx, tally

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._tx, name)
        if not callable(found):
            return found

        def counted(*args: Any, **params: Any) -> Any:
            if inspect.iscoroutinefunction(found):
                self._tally.round_trips += len(apart(load("postgres"), args[0])) if name == "save" else 1
            self._tally.statements.update(named(args[0]) if args else ())
            return found(*args, **params)

        return counted


def named(asked: Any) -> Sequence[str]:
    """The statements that a call asks for: by its first argument, or by the first part of each of its entries."""
    entries = [asked] if isinstance(asked, str) else [one if isinstance(one, str) else one[0] for one in asked]
    return [entry for entry in entries if entry in texts()]


class CountedBackend:
    """A backend that counts; all that it does not count goes through as it is."""

    def __init__(self, backend: StateBackend, tally: Tally) -> None:
        self._backend, self._tally = backend, tally

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def write(self, work: Work[Any], *, tenants: Tenants = EVERY, lock_ms: int | None = None) -> Any:
        """One transaction."""
        found = await self._backend.write(lambda tx: work(CountedTx(tx, self._tally)), tenants=tenants, lock_ms=lock_ms)
        self._tally.commits += 1
        self._tally.round_trips += 2
        return found

    async def read(self, work: Work[Any], *, tenants: Tenants = EVERY, scan: bool = False) -> Any:
        """A reader; it commits nothing."""
        return await self._backend.read(lambda tx: work(CountedTx(tx, self._tally)), tenants=tenants, scan=scan)
