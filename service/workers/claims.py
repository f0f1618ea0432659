"""What only the database can choose: workers that nobody has heard of for long enough."""

from collections.abc import Sequence
from typing import Any

from backends.protocol import Row, Tx
from service.kernel.command import Chooser
from service.kernel.principal import Principal
from service.kernel.tables import Wanted
from service.workers.model import LOST_MS, QUEUES_OF, ReapWorkers, Worker


def anywhere(_command: Any, _who: Principal) -> Any:
    """Sweeps of all tenants choose together."""
    return None


async def choose_lost(tx: Tx, commands: Sequence[ReapWorkers], _whos: Sequence[Principal]) -> list[list[Row]]:
    """Workers that were lost long enough ago, the longest first; the first command gets them all."""
    limit = max(command.limit for command in commands)
    return [await tx.all("lost_workers", before=tx.now - LOST_MS, limit=limit), *([] for _ in commands[1:])]


def worker_and_queues(values: Row) -> list[Wanted]:
    """The chosen worker and its queues."""
    key = (values[0], values[1])
    return [(Worker, key), (QUEUES_OF, key)]


LOST = Chooser(Worker, anywhere, choose_lost, worker_and_queues)
