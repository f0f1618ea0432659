"""Every field of every Struct that a body may hold, given every kind of value that it was not made for.

The bodies are generated from the Structs. A value that the type does not take is refused and changes nothing; one that
it takes may do what it says, and whatever it meets on the way, the service does not fail. The same on both engines.
"""

import random
import re
import string
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from service import capabilities

OPERATIONS = {endpoint.operation: endpoint for endpoint in capabilities.endpoints()}
STRUCTS = [name for name, one in OPERATIONS.items() if isinstance(one.body, msgspec.StructMeta)]
NOISE = random.Random(7)
LETTERS = string.ascii_letters + string.digits


def noise(length: int, letters: str = LETTERS) -> str:
    """Text that does not compress, so that no index or page takes it for shorter than it is."""
    return "".join(NOISE.choices(letters, k=length))


WIDE = "".join(map(chr, range(0x1F300, 0x1F600)))
"""Characters of four bytes each, the most that a text of so many characters can weigh."""
ODD: list[Any] = [
    None, True, False, [], {}, "", " ", "a\n", "\n", "\x01", "\x7f\u0080\u202e", "..", "a/b", "'; --", "%00", "*",
    "a,b", "é" * 64, 0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 1.5, -0.0, 1e308, 5e-324, noise(129), noise(257),
    noise(10_000), noise(256, WIDE), noise(512, WIDE), noise(64, WIDE), [None], [[]], [""], ["x"] * 33, ["a"] * 1_001,
    [noise(128) for _ in range(32)], {"": 1}, {"a": {}}, {"a": "b"}, {noise(128): noise(256, WIDE)},
    {noise(10): noise(10_000)}, {f"k{number}": number for number in range(65)},
]  # fmt: skip
"""Values of every kind; for any field most are wrong."""
SIMPLE = ("a", "completed", "2026-01-01", "/a", "1", "0" * 64)


def sample(kind: inspect.Type) -> Any:
    """The least that the type takes."""
    match kind:
        case inspect.StructType(fields=fields, tag_field=tag_field, tag=tag):
            found = {field.encode_name: sample(field.type) for field in fields if field.required}
            return found if tag_field is None else {tag_field: tag} | found
        case inspect.UnionType(types=types):
            return sample(types[0])
        case inspect.ListType(item_type=item, min_length=least):
            return [sample(item)] * (least or 0)
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.StrType(pattern=pattern):
            return next(text for text in SIMPLE if pattern is None or re.search(pattern, text))
        case inspect.IntType(ge=least) | inspect.FloatType(ge=least):
            return least or 0
        case inspect.BoolType():
            return False
        case inspect.Metadata(type=inner):
            return sample(inner)
        case _:
            return {}


Wrap = Callable[[Any], Any]


def bodies(kind: inspect.Type, wrap: Wrap, at: str = "") -> Iterator[tuple[str, Any]]:
    """(where, body) for each place below `kind` and each odd value there; the rest is the least that the type takes."""
    match kind:
        case inspect.Metadata(type=inner):
            yield from bodies(inner, wrap, at)
        case inspect.StructType(fields=fields):
            least = sample(kind)
            yield f"{at}/no_such_field", wrap(least | {"no_such_field": 1})
            for name in least:
                yield f"{at}/{name} missing", wrap({key: value for key, value in least.items() if key != name})
            for field in fields:
                name, here = field.encode_name, f"{at}/{field.encode_name}"
                place = lambda value, name=name: wrap(least | {name: value})  # noqa: E731
                for number, value in enumerate(ODD):
                    if isinstance(field.type, inspect.RawType) and number % 9:
                        continue  # opaque: it takes them all alike
                    yield f"{here} = {number}", place(value)
                yield from bodies(field.type, place, here)
        case inspect.UnionType(types=types):
            for number, one in enumerate(types):
                yield from bodies(one, wrap, f"{at}|{number}")
        case inspect.ListType(item_type=item):
            yield from bodies(item, lambda value: wrap([value]), f"{at}/0")
        case inspect.DictType(value_type=inner):
            yield from bodies(inner, lambda value: wrap({"a": value}), f"{at}/a")


def all_bodies(operation: str) -> list[tuple[str, bytes]]:
    """Every body that is tried at an operation, encoded."""
    kind = inspect.type_info(OPERATIONS[operation].body)
    return [(where, msgspec.json.encode(body)) for where, body in bodies(kind, lambda body: body)]


def taken(operation: str, body: bytes) -> bool:
    """Whether the operation's type takes the body."""
    try:
        msgspec.json.decode(body, type=OPERATIONS[operation].body)
    except msgspec.ValidationError:
        return False
    return True


def structs(kind: inspect.Type) -> Iterator[inspect.StructType]:
    """The Structs that a body may hold."""
    match kind:
        case inspect.Metadata(type=inner) | inspect.ListType(item_type=inner) | inspect.DictType(value_type=inner):
            yield from structs(inner)
        case inspect.UnionType(types=types):
            for one in types:
                yield from structs(one)
        case inspect.StructType(fields=fields):
            yield kind
            for field in fields:
                yield from structs(field.type)


@pytest.mark.parametrize("operation", [name for name, one in OPERATIONS.items() if one.body is not None])
def test_a_body_has_no_room_for_fields_that_nobody_declared(operation: str) -> None:
    for kind in structs(inspect.type_info(OPERATIONS[operation].body)):
        assert kind.forbid_unknown_fields, kind.cls


USED_UP = {"execution/terminal", "lease/settled", "lease/stale", "lease/not-held", "dead-letter/settled", "not-found"}
"""Codes that may only say that an earlier request has ended what this one names."""
ANSWERS: dict[tuple[str, str], tuple[int, str | None]] = {}
"""What the engine before this one answered."""


@pytest.mark.parametrize("operation", STRUCTS)
async def test_a_field_that_is_given_what_it_does_not_take_is_refused(operation: str, raw: Any, world: Any) -> None:
    endpoint, before = OPERATIONS[operation], await world.known()
    for where, body in all_bodies(operation):
        if not taken(operation, body):
            reply = await raw(endpoint.method, world.path(endpoint), world.token(endpoint), body)
            assert reply.refused("request/invalid", "request/json").status in (400, 422), where
    assert await world.picture() == before


@pytest.mark.parametrize("operation", STRUCTS)
async def test_a_field_that_takes_an_odd_value_never_makes_the_service_fail(
    operation: str, raw: Any, own_world: Any
) -> None:
    for where, body in all_bodies(operation):
        if not taken(operation, body):
            continue
        for more, sent in variants(operation, body):
            reply = await on_something_alive(raw, own_world, OPERATIONS[operation], sent)
            assert reply.status < 500, f"{where}{more}: {sent[:300]!r}: {reply.body[:300]!r}"
            reply.answered()
            same = ANSWERS.setdefault((operation, where + more), (reply.status, reply.code))
            assert (reply.status, reply.code) == same, f"{where}{more}: the engines differ"


def variants(operation: str, body: bytes) -> Iterator[tuple[str, bytes]]:
    """The body; of a transition that settles, also under a lease of the item that is held when it is sent."""
    yield "", body
    if operation == "transition" and b'"type":"settle"' in body:
        yield " under a lease", b'{"lease":{"work_item_id":"@held","epoch":1},' + body[1:]


async def on_something_alive(raw: Any, world: Any, endpoint: Any, body: bytes) -> Any:
    """The request; once more, on a new execution and item, if those it named had ended."""
    for attempt in range(2):
        sent = body.replace(b"@held", world.ids["work-items"].encode())
        reply = await raw(endpoint.method, world.path(endpoint), world.token(endpoint), sent)
        if reply.code not in USED_UP or attempt or "{id}" not in endpoint.path:
            break
        await world.renew()
    return reply
