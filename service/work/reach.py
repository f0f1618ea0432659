"""How far a token's queues reach in lists: a token with globs is shown the items of the queues that they match."""

from backends.protocol import Row, StateBackend, Tx, Where
from service.kernel.principal import Principal


async def reached(backend: StateBackend, who: Principal, where: Where, column: str = "w.queue") -> Where:
    """`where`, and that `column` is a queue that `who` may use. The queues are matched here, as everywhere else."""
    if not who.queues:
        return where

    async def read(tx: Tx) -> list[Row]:
        return await tx.all("queue_names", tenant_id=who.tenant_id)

    names = [row[0] for row in await backend.read(read, tenants=who.reach) if who.may_use(row[0])]
    return f"({where[0]} AND {column} IN :reached[])", {**where[1], "reached": names}
