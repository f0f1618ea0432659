"""`python -m bench counts`: what each hot command costs the store, in counts, which no busy machine can change.

Each command alone and fifty in a request, over HTTP within this process, with the store counted at its seam. The counts
are kept in `counts.json`, and a test holds the code to them; `--write` writes them anew. `log_bytes` (bytes of log for
each command) says what a command writes to disk; pages and ids make it differ a little from run to run, so it is told
and not compared.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from bench import bodies, report, written
from bench.engine import opened
from bench.inside import Inside, inside
from bench.table import Table, markdown, text

FILE = Path(__file__).with_name("counts.json")
SIZES = {"alone": 1, "fifty": 50}
TIMES = 20
"""How often a request is made for the bytes that it writes; the counts of each are the same, or it is an error."""
Send = Callable[[], Awaitable[Any]]


class Cost(msgspec.Struct, omit_defaults=True):
    """What one request costs: transactions, statements by name, round trips where there are any; bytes of log for each
    command."""

    commits: int
    statements: dict[str, int]
    round_trips: int | None = None
    log_bytes: int | None = None


Costs = dict[str, dict[str, Cost]]
"""By command, then by size."""


async def executions(service: Inside, queue: str, count: int) -> list[str]:
    """Started executions, each with an item on `queue`."""
    made = await service.post(f"{bodies.EXECUTIONS}:batch", [bodies.start(queue)] * count)
    return [one["ok"]["execution_id"] for one in made["results"]]


async def leases(service: Inside, count: int) -> list[dict[str, Any]]:
    """Claimed items of executions of their own."""
    await executions(service, "leased", count)
    return list((await service.post(bodies.CLAIM, bodies.claim("leased", count)))["items"])


async def start(service: Inside, count: int) -> Send:
    """A start with a first item."""
    if count == 1:
        return lambda: service.post(bodies.EXECUTIONS, bodies.start())
    return lambda: service.post(f"{bodies.EXECUTIONS}:batch", [bodies.start()] * count)


async def claim(service: Inside, count: int) -> Send:
    """A claim of as many items."""
    await executions(service, "claimed", count)
    return lambda: service.post(bodies.CLAIM, bodies.claim("claimed", count))


async def complete(service: Inside, count: int) -> Send:
    """Settled items of executions that go on."""
    held = [(one["id"], bodies.complete(one["epoch"])) for one in await leases(service, count)]
    if count == 1:
        return lambda: service.post(f"{bodies.ITEMS}/{held[0][0]}/complete", held[0][1])
    return lambda: service.post(f"{bodies.ITEMS}:complete", [{"id": item, **said} for item, said in held])


async def turn(service: Inside, count: int) -> Send:
    """A claim of as many items, which settles as many."""
    settle = [{"complete": {"id": one["id"], **bodies.complete(one["epoch"])}} for one in await leases(service, count)]
    await executions(service, "turned", count)
    return lambda: service.post(bodies.CLAIM, bodies.claim("turned", count) | {"settle": settle})


async def transition(service: Inside, count: int) -> Send:
    """Settle, append, merge state, enqueue."""
    held = await leases(service, count)
    made = [(one["execution_id"], bodies.transition(one["id"], one["epoch"])) for one in held]
    if count == 1:
        return lambda: service.post(f"{bodies.EXECUTIONS}/{made[0][0]}/transitions", made[0][1])
    return lambda: service.post("/v1/transitions:batch", [{"execution_id": one, **said} for one, said in made])


async def append(service: Inside, count: int) -> Send:
    """Events of one execution."""
    [execution] = await executions(service, "idle", 1)
    path, events = f"{bodies.EXECUTIONS}/{execution}/events", bodies.append()["events"] * count
    return lambda: service.post(path, {"events": events})


COMMANDS: dict[str, Callable[[Inside, int], Awaitable[Send]]] = {
    "start": start, "claim": claim, "complete": complete, "settle-claim": turn, "transition": transition,
    "append": append,
}  # fmt: skip


async def cost(service: Inside, command: str, count: int, meter: written.Meter | None) -> Cost:
    """Of a request that has been made before: once what it needs is made, and once more it is remembered."""
    for _ in range(2):
        await (await COMMANDS[command](service, count))()
    found: list[Cost] = []
    total = 0
    for _ in range(TIMES if meter else 2):
        send = await COMMANDS[command](service, count)
        if meter:
            await meter()
        service.tally.clear()
        await send()
        tally = service.tally
        trips = tally.round_trips if service.engine == "postgres" else None
        found.append(Cost(tally.commits, dict(sorted(tally.statements.items())), trips))
        total += await meter() if meter else 0
    if found.count(found[0]) != len(found):
        raise RuntimeError(f"{command} of {count} does not cost the same each time: {found}")
    if meter:
        found[0].log_bytes = round(total / len(found) / count)
    return found[0]


async def costs(url: str, *, with_bytes: bool) -> Costs:
    """Of every command, on the empty store at `url`."""
    meter = written.of(url) if with_bytes else None
    async with inside(url) as service:
        return {
            command: {name: await cost(service, command, count, meter) for name, count in SIZES.items()}
            for command in COMMANDS
        }


def kept() -> dict[str, Costs]:
    """What is written down, by engine."""
    return msgspec.json.decode(FILE.read_bytes(), type=dict[str, Costs])


def compared(engine: str, found: Costs) -> list[str]:
    """Where the counts are not those that are written down, in words; bytes are not compared."""
    said = []
    for command, sizes in kept()[engine].items():
        for size, before in sizes.items():
            now = found[command][size]
            for field in ("commits", "statements", "round_trips"):
                was, is_ = getattr(before, field), getattr(now, field)
                if was != is_:
                    said.append(f"{engine} {command} {size}: {field} {was} → {is_}")
    return said


def table(found: dict[str, Costs]) -> Table:
    """One row an engine, command and size."""
    rows = [
        (
            engine,
            command,
            size,
            str(one.commits),
            str(sum(one.statements.values())),
            "" if one.round_trips is None else str(one.round_trips),
            "" if one.log_bytes is None else f"{one.log_bytes:,}",
        )
        for engine, of_engine in found.items()
        for command, sizes in of_engine.items()
        for size, one in sizes.items()
    ]
    columns = ("engine", "command", "in a request", "commits", "statements", "round trips", "log bytes a command")
    return Table("What a request costs the store", columns, rows, ("command", "in a request"))


def main(arguments: list[str]) -> int:
    """Count on both engines, print, compare with what is written down (or write it); 1 when it differs."""
    parser = argparse.ArgumentParser("python -m bench counts", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write them into bench/counts.json and bench/README.md")
    chosen = parser.parse_args(arguments)
    found = {}
    for name in ("sqlite", "postgres"):
        with opened(name) as engine, engine.store() as url:
            found[name] = asyncio.run(costs(url, with_bytes=True))
    print(text(table(found)))
    if chosen.write:
        FILE.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
        report.place("counts", markdown(table(found)))
        return 0
    differs = [line for engine, of_engine in found.items() for line in compared(engine, of_engine)]
    print("\n".join(differs))
    return 1 if differs else 0
