"""Commands and their rules: what a capability hands to the kernel.

A command is a frozen Struct; its rule says, purely, which rows it needs (`keys`) and what it does to them (`decide`).
A fact is a Struct told inside a decision; its listeners are functions of other capabilities, run in the same overlay.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from backends.protocol import Read, Row
from service.kernel import request_id
from service.kernel.principal import Principal, Standing
from service.kernel.tables import Wanted
from service.kernel.view import View

PATH = ""
"""Default of a command's field that the path of the request fills in."""

Decide = Callable[[View, Any], Any]
Keys = Callable[[Any, Principal, Standing], Iterable[Wanted]]


def no_keys(_command: Any, _who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """For a command whose rows are found as it goes."""
    return ()


class Chooser(msgspec.Struct, frozen=True):
    """For commands whose rows only the database can choose: a claim, due work. One choice serves a whole group.

    `group(command, who)` names the commands that choose together. `choose(tx, commands, whos)` gives, for each
    command, rows as the table of `row` selects them, locked with SKIP LOCKED and so never waited for; no two groups may
    come upon the same row. With `keys`, the chosen rows are only pointers, read without a lock: what `keys(values)`
    wants is then loaded and locked in order with everything else, the chosen row first, and judged again.

    `ahead(commands, whos)` makes of the commands what `choose` wants, and says what to read for it that nothing need
    be locked for: that goes with the first load of the batch. `choose` gets the one and the rows of each read after
    its other arguments. What is not `whole` is left as the batch has it where it has been loaded or chosen before.
    """

    row: type
    group: Callable[[Any, Principal], Any]
    choose: Callable[..., Awaitable[list[list[Row]]]]
    keys: Callable[[Row], list[Wanted]] | None = None
    ahead: Callable[[Sequence[Any], Sequence[Principal]], tuple[Any, list[Read]]] | None = None
    whole: bool = True


class Rule(msgspec.Struct, frozen=True):
    """One command type's rule. `while_suspended` lets it through for a tenant that is suspended or archived."""

    command: type
    decide: Decide
    keys: Keys = no_keys
    chooser: Chooser | None = None
    while_suspended: bool = False


class Origin:
    """The request that a command came with, for the audit log; its source is looked up only where it is told."""

    __slots__ = ("_find", "request_id")

    def __init__(self, find: Callable[[], str]) -> None:
        self.request_id, self._find = request_id.current().decode(), find

    @property
    def source(self) -> str:
        """The address that sent it, as the limiter of failures knows it."""
        return self._find()


class Request(msgspec.Struct, frozen=True):
    """A command on its way: who asks, and, when the caller wants it recognised, its Idempotency-Key and fingerprint.
    `again` says that it was refused or given nothing, and is decided once more; `behind`, that it is decided over what
    the others of its batch have written, in the same transaction."""

    who: Principal
    command: Any
    idempotency_key: str | None = None
    fingerprint: str = ""
    status_of: Callable[[Any], int] | None = None
    origin: Origin | None = None
    again: bool = False
    behind: bool = False


class PutOff(msgspec.Struct, frozen=True):
    """In the place of an outcome: the request as it goes with a later batch."""

    request: Request


class Replayed(msgspec.Struct, frozen=True):
    """The stored answer to a request that was made before."""

    status: int
    body: bytes
