"""What does not fit: all that is wrong with a body, each at its place.

msgspec stops at the first. So a body that it refused is looked at part by part, each field, item and value by itself;
of a large one the first is told, for to look at all of it takes long.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Raw
from msgspec.structs import FieldInfo

from service.http.words import in_words

Misfit = tuple[str, str]
MOST, LOOKS, LARGE = 100, 1_000, 65_536
"""What is told of a body at most, how many of its parts are looked at, and how many bytes are too many for that."""
decoder = cache(msgspec.json.Decoder)


def misfits(kind: Any, body: bytes, said: str) -> list[Misfit]:
    """What does not fit `kind` in a body that msgspec has refused with what it `said`, as (JSON pointer, sentence): one
    at least. Raises `msgspec.DecodeError` for one that is no JSON further on."""
    decoder(Raw).decode(body)
    return [located(said)] if len(body) > LARGE else list(islice(Look().at(kind, body, ""), MOST))


def located(message: str) -> Misfit:
    """msgspec's message as (JSON pointer, sentence)."""
    text, _, at = message.partition(" - at `")
    key, _, place = at.rpartition("$")
    pointer = "".join(f"/{part}" for part in place.rstrip("`").replace("[", ".").replace("]", "").split(".") if part)
    return pointer, f"Of a key in it: {in_words(text)}" if key else in_words(text)


def choices(kind: Any, pointer: str = "") -> list[str]:
    """What may be said at a place in a part of this type, if that is one of some texts: a value, or a tag."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return choices(parts[0], pointer)
    if origin in (Union, UnionType):
        return [choice for part in parts for choice in choices(part, pointer)]
    if origin is Literal:
        return [str(part) for part in parts] if not pointer else []
    config = getattr(kind, "__struct_config__", None)
    return [str(config.tag)] if config is not None and config.tag_field and pointer == f"/{config.tag_field}" else []


def one_of(texts: list[str]) -> str:
    """The end of a sentence about something that is none of these."""
    return f"; it is one of {', '.join(texts)}" if texts else ""


class Look:
    """One look at a body, with the parts that may still be looked at."""

    def __init__(self) -> None:
        self.left = LOOKS

    def at(self, kind: Any, raw: bytes | Raw, place: str) -> Iterator[Misfit]:
        """What is wrong with the part at `place`: what is wrong inside or, where nothing is, with the whole."""
        self.left -= 1
        error = refusal(kind, raw)
        if error is None:
            return
        inside = list(islice(self.within(kind, raw, place), MOST)) if self.left > 0 else []
        if not inside:
            pointer, said = located(error)
            inside = [(place + pointer, said + one_of(choices(kind, pointer)))]
        yield from inside

    def within(self, kind: Any, raw: bytes | Raw, place: str) -> Iterator[Misfit]:
        """What is wrong with the fields, items or values of a part, if it has any; and with how many there are."""
        kind, bounds = bare(kind, raw)
        origin, parts = get_origin(kind), get_args(kind)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield from self.fields(kind, raw, place)
        elif origin in (list, dict) and refusal(list[Raw] if origin is list else dict[str, Raw], raw) is None:
            shell: Any = list[Raw] if origin is list else dict[parts[0], Raw]  # type: ignore[valid-type]
            if (error := refusal(Annotated[(shell, *bounds)] if bounds else shell, raw)) is not None:
                yield place, located(error)[1]
            for name, value in values(raw):
                yield from self.at(parts[-1], value, under(place, name))

    def fields(self, kind: type[msgspec.Struct], raw: bytes | Raw, place: str) -> Iterator[Misfit]:
        """What is wrong with the fields of an object."""
        given = dict(values(raw)) if refusal(dict[str, Raw], raw) is None else None
        if given is None:
            return
        known = fields_of(kind)
        for name, field in known.items():
            if field.required and name not in given:
                yield place, f"Object missing required field `{name}`"
        for name, value in given.items():
            if name in known:
                yield from self.at(known[name].type, value, under(place, name))
            elif kind.__struct_config__.forbid_unknown_fields and name != kind.__struct_config__.tag_field:
                yield place, f"Object contains unknown field `{name}`"


@cache
def fields_of(kind: type[msgspec.Struct]) -> dict[str, FieldInfo]:
    """The fields of an object by the names that they are sent under; msgspec looks at every annotation again."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def refusal(kind: Any, raw: bytes | Raw) -> str | None:
    """Why msgspec does not take it as that; None if it does."""
    try:
        decoder(kind).decode(raw)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def values(raw: bytes | Raw) -> Iterator[tuple[str, Raw]]:
    """The items of an array by their places, the values of an object by their names."""
    try:
        found: Mapping[str, Raw] | list[Raw] = decoder(list[Raw] | dict[str, Raw]).decode(raw)
    except msgspec.ValidationError:
        return
    pairs = enumerate(found) if isinstance(found, list) else found.items()
    for name, value in islice(pairs, LOOKS):
        yield str(name), value


def under(place: str, name: str) -> str:
    """The place of what is called so in the part at `place`."""
    return f"{place}/{name.replace('~', '~0').replace('/', '~1')}"


def bare(kind: Any, raw: bytes | Raw) -> tuple[Any, tuple[Any, ...]]:
    """A type without its bounds, and these; of a choice what is meant, as far as that can be told."""
    bounds: tuple[Any, ...] = ()
    while True:
        if get_origin(kind) is Annotated:
            kind, *more = get_args(kind)
            bounds += tuple(more)
        elif get_origin(kind) in (Union, UnionType):
            choices = [one for one in get_args(kind) if one is not NoneType]
            if len(choices) > 1:
                choices = [one for one in choices if tagged(one, raw)]
            if len(choices) != 1:
                return None, ()
            kind = choices[0]
        else:
            return kind, bounds


def tagged(kind: Any, raw: bytes | Raw) -> bool:
    """Whether an object says that it is of this kind."""
    said = getattr(kind, "__struct_config__", None)
    if said is None or said.tag_field is None:
        return False
    tag = dict(values(raw)).get(said.tag_field)
    return tag is not None and refusal(str, tag) is None and decoder(str).decode(tag) == said.tag
