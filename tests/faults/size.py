"""How large a long form is: what an environment variable says, or the size at which its promise is stated."""

import os


def size(name: str, default: int) -> int:
    """`HOLDFAST_<NAME>` as a number of rounds, items or seconds; `default` where it is not set."""
    return int(os.environ.get(f"HOLDFAST_{name.upper()}", default))
