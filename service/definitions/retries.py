"""Retry policies: what one is, the built-in ones, and what is wrong with one that was offered.

A field that is missing or null takes its default; only `max_attempts` has none. Unknown keys are ignored.
"""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from service.definitions.report import Problem, shown

MOST_ATTEMPTS = 1_000
LONGEST_INITIAL_DELAY_MS = 86_400_000
BACKOFFS = ("fixed", "linear", "exponential")


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often a node is tried and how long it waits in between; the first delivery counts as an attempt."""

    max_attempts: int
    backoff: Literal["fixed", "linear", "exponential"] = "exponential"
    initial_delay_ms: int = 1_000
    max_delay_ms: int = 300_000
    jitter: bool = True


BUILT_IN_POLICIES: dict[str, RetryPolicy] = {
    "no_retry": RetryPolicy(max_attempts=1),
    "io_default": RetryPolicy(max_attempts=5),
    "llm_default": RetryPolicy(max_attempts=3),
}

_DEFAULTS = msgspec.structs.asdict(RetryPolicy(max_attempts=1))


def policy_problems(offered: Any, at: str) -> Iterator[Problem]:
    """Everything wrong with the policy `offered` at the pointer `at`."""
    if not isinstance(offered, dict):
        yield at, f"A retry policy must be an object; this is {shown(offered)}."
        return
    yield from _attempts_problems(offered.get("max_attempts"), f"{at}/max_attempts")
    given = _DEFAULTS | _given(offered)
    if given["backoff"] not in BACKOFFS:
        yield f"{at}/backoff", f"backoff must be fixed, linear or exponential; this is {shown(given['backoff'])}."
    yield from _delay_problems(given["initial_delay_ms"], given["max_delay_ms"], at)
    if not isinstance(given["jitter"], bool):
        yield f"{at}/jitter", f"jitter must be true or false; this is {shown(given['jitter'])}."


def read_policy(offered: Any) -> RetryPolicy | None:
    """The policy that `offered` describes, or None if it is not a sane one."""
    sane = isinstance(offered, dict) and next(policy_problems(offered, ""), None) is None
    return RetryPolicy(**_given(offered)) if sane else None


def _given(offered: dict[str, Any]) -> dict[str, Any]:
    """The fields of a policy that `offered` sets."""
    return {field: offered[field] for field in RetryPolicy.__struct_fields__ if offered.get(field) is not None}


def _attempts_problems(offered: Any, at: str) -> Iterator[Problem]:
    if offered is None:
        yield at, f"max_attempts is missing; give an integer from 1 to {MOST_ATTEMPTS}."
    elif not _is_integer(offered) or not 1 <= offered <= MOST_ATTEMPTS:
        yield at, f"max_attempts must be an integer from 1 to {MOST_ATTEMPTS}; this is {shown(offered)}."


def _delay_problems(initial: Any, longest: Any, at: str) -> Iterator[Problem]:
    """What is wrong with the two delays, defaults included: a long first delay needs a longest one that is longer."""
    sane = _is_integer(initial) and 0 <= initial <= LONGEST_INITIAL_DELAY_MS
    if not sane:
        rule = f"initial_delay_ms must be an integer from 0 to {LONGEST_INITIAL_DELAY_MS}"
        yield f"{at}/initial_delay_ms", f"{rule}; this is {shown(initial)}."
    least = initial if sane else 0
    if not _is_integer(longest) or longest < least:
        rule = f"max_delay_ms must be an integer of at least {least}" + (", the initial_delay_ms" if sane else "")
        yield f"{at}/max_delay_ms", f"{rule}; it is {shown(longest)}."


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
