"""Arrays as asyncpg encodes them, without a question that costs more than the encoding.

Before it encodes an array asyncpg asks of each element whether it is an array itself, through two abstract base
classes: 0.25 µs an element, half of what a batch costs on its way to Postgres. We send flat lists, so a few concrete
types are asked for instead. An asyncpg that asks in another way is left as it is; then this only saves nothing.
"""

import asyncpg.protocol.protocol as protocol

ARRAYS = (list, tuple, set, frozenset)
"""What counts as an array; a string, bytes or a mapping never did."""


def ask_for_concrete_types() -> None:
    """For every connection of this process."""
    if hasattr(protocol, "IterableABC"):
        protocol.IterableABC = ARRAYS
