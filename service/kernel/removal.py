"""Executions that are being removed, which may take several commits: the first of them takes them out of sight.

Their logs go first, each from its first event on; an execution without that event is not read. The commit that takes
it away sets the head's `sequence` to 0, which no other execution has: lists leave such a head out, commands find
nothing there, and only a start of the same id is told to wait. What counts executions loses it in the same commit.
"""

from collections.abc import Sequence

import msgspec

from backends.protocol import Tx
from service.kernel.tallies import tally_changes


class Going(msgspec.Struct, frozen=True):
    """The head of an execution of which rows were removed."""

    id: str
    namespace: str
    status: str
    sequence: int


async def take_out(tx: Tx, tenant_id: str, heads: Sequence[Going]) -> int:
    """Leave out of lists and tallies what was whole until this transaction and is not any more. `heads` are as they
    were before it. How many rows tell the tallies so."""
    shown = [one for one in heads if one.sequence]
    if not shown:
        return 0
    whole = {row[0] for row in await tx.all("whole_executions", rows=[(tenant_id, one.id) for one in shown])}
    out = [one for one in shown if one.id not in whole]
    if not out:
        return 0
    await tx.many("hide_executions", [(tenant_id, one.id) for one in out])
    changes = tally_changes([((tenant_id, one.namespace, one.status), None) for one in out], tx.now)
    await tx.many("insert_tally_changes", changes)
    return len(changes)
