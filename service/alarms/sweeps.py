"""The sweep that rings alarms: a page of what is due at a time, an owner's together and in the order of their times.

The kernel gathers the owners' commands. Those of one owner never go side by side: its log says what was due first.
Where somebody holds a row that one of them needs, a stranger or a process that was paused in a transaction, they go
apart from then on, each in a transaction of its own and behind all others, until they have rung: no caller's command
waits with them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import structlog

from backends.protocol import EVERY, Row, StateBackend, Tx
from service.alarms.model import RingAlarms
from service.kernel.command import Request
from service.kernel.principal import SYSTEM, Principal, internal
from service.kernel.rota import Line, Page, Took, in_turns
from service.kernel.run import Kernel, is_held
from service.kernel.sweeps import Sweep

log = structlog.get_logger()
PAGE = 500
TOGETHER = 100
"""Alarms of one owner that ring in one commit."""
Run = Callable[[Principal, Any], Awaitable[Any]]
"""Runs a command."""


class AlarmLine(Line):
    """The line of the alarms, and those who go apart: the names of their alarms by tenant and owner."""

    apart: dict[tuple[str, str], list[str]] = msgspec.field(default_factory=dict)


async def due(backend: StateBackend, tenant_id: str, limit: int) -> list[Row]:
    """The alarms whose time has come, of one tenant or (`SYSTEM`) of all, the most overdue first: tenant, owner,
    name."""

    async def read(tx: Tx) -> list[Row]:
        if tenant_id == SYSTEM:
            return await tx.all("due_alarms", now=tx.now, limit=limit)
        return await tx.all("due_alarms_of_tenant", tenant_id=tenant_id, now=tx.now, limit=limit)

    return await backend.read(read, tenants=EVERY if tenant_id == SYSTEM else [tenant_id])


async def take(backend: StateBackend, kernel: Kernel, line: AlarmLine, tenant_id: str, limit: int) -> Took:
    """Ring what has been due longest, but for what goes apart."""
    rows, owners = await due(backend, tenant_id, limit), dict[tuple[str, str], list[str]]()
    for tenant, owner, name in rows:
        owners.setdefault((tenant, owner), []).append(name)
    line.apart |= {key: owners.pop(key) for key in list(owners) if key in line.apart}
    parts = await asyncio.gather(*(ring_of(kernel.run, *key, names) for key, names in owners.items()))
    found = list(zip(owners.items(), parts, strict=True))
    held = {} if backend.serial else {key: names for (key, names), part in found if any(map(is_held, part))}
    line.apart |= held
    told = [one for (key, _), part in found if key not in held for one in part]
    errors = tuple(one for one in told if isinstance(one, Exception))
    return Took(len(rows), sum(one is True for one in told), errors)


async def ring_apart(kernel: Kernel, line: AlarmLine) -> list[bool | Exception]:
    """Ring what goes apart, until one meets such a row again: its turn is behind the others the next time."""
    told: list[bool | Exception] = []
    while line.apart and not any(map(is_held, told)):
        key = next(iter(line.apart))
        names = line.apart.pop(key)
        part = await ring_of(partial(run_alone, kernel), *key, names)
        told += part
        if any(map(is_held, part)):
            line.apart[key] = names
    return told


async def run_alone(kernel: Kernel, who: Principal, command: Any) -> Any:
    """Run a command in a transaction of its own, beside those of others."""
    (outcome,) = await kernel.execute([Request(who, command)])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def ring_of(run: Run, tenant_id: str, owner_id: str, names: list[str]) -> list[bool | Exception]:
    """Ring alarms of one owner, some at a commit; if a commit fails, each of these by itself, unless it met
    a row that somebody holds: each would wait for it as long."""
    told: list[bool | Exception] = []
    for some in (tuple(names[first : first + TOGETHER]) for first in range(0, len(names), TOGETHER)):
        try:
            told += await run(internal(tenant_id), RingAlarms(owner_id, some))
        except Exception as error:
            if is_held(error):
                return [*told, error]
            told += [error] if len(some) == 1 else [await ring_alone(run, tenant_id, owner_id, one) for one in some]
    return told


async def ring_alone(run: Run, tenant_id: str, owner_id: str, name: str) -> bool | Exception:
    """Ring one alarm."""
    (told,) = await ring_of(run, tenant_id, owner_id, [name])
    return told


async def ring_page(backend: StateBackend, kernel: Kernel, line: AlarmLine) -> Page:
    """A page of due alarms, tenants in turn behind those that have been due longest; then those that go apart."""
    page = await in_turns(backend, line, "tenants_with_due_alarms", partial(take, backend, kernel, line), PAGE)
    told = await ring_apart(kernel, line)
    errors = tuple(one for one in told if isinstance(one, Exception))
    return Page(page.done + sum(one is True for one in told), page.more, page.errors + errors)


async def ring_due(backend: StateBackend, kernel: Kernel) -> int:
    """Ring what is due, until nothing of a page rings; how many rang. One that cannot ring holds up no other, and the
    first such error is raised at the end."""
    line, rang, errors, more = AlarmLine(), 0, list[BaseException](), True
    while more:
        done = await ring_page(backend, kernel, line)
        rang, more, errors = rang + done.done, done.more, [*errors, *done.errors]
    if errors:
        raise errors[0]
    return rang


async def ring(services: Any) -> bool:
    """Ring a page of what is due."""
    done = await ring_page(services.backend, services.kernel, services.lines.setdefault("alarms", AlarmLine()))
    if done.errors:
        log.warning("alarms could not ring and are tried again", count=len(done.errors), error=str(done.errors[0]))
    return done.more


SWEEPS = [Sweep("alarms.ring", 0, ring)]
