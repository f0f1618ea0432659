"""JSON Schemas of Structs as they are on the wire, under names that clients can be generated from.

msgspec describes types; it does not know what this service leaves out of a body (what the path says), that a reply
always has all its fields, or what opaque JSON is. So each Struct is described through a twin: a Struct of the same name
with exactly the fields that are sent. Unions without tags, which msgspec will not decode, are described as well.
"""

from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta
from msgspec.structs import FieldInfo, fields

from service.http.batch import BATCH_MAX, Batch
from service.http.glossary import MEANINGS
from service.http.lists import Page
from service.kernel.command import PATH

Schema = dict[str, Any]
Mode = Literal["body", "nested", "entry", "reply"]
"""How a Struct is met: as the body of one operation, inside a body, as an entry of a batch, or in a reply."""

COMPONENTS = "#/components/schemas/"
OPAQUE_MEANING = "Any JSON value, kept as it is."
OPAQUE: Any = Annotated[Any, Meta(description=OPAQUE_MEANING)]
NEVER_SENT = ("digest",)
PROBLEM: Any = Annotated[Any, Meta(extra_json_schema={"$ref": COMPONENTS + "Problem"})]


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": COMPONENTS + name}


def named_by_path(field: FieldInfo) -> bool:
    """Whether the path of a request fills the field in: a plain text whose default is `PATH`."""
    return field.type is str and field.default == PATH


def known(bounds: Sequence[Any], what: str) -> Any:
    """What `Meta(extra={what: …})` says: of opaque JSON its `shape`; of answers to many commands the `results`."""
    return next((bound.extra.get(what) for bound in bounds if isinstance(bound, Meta) and bound.extra), None)


def form_of(kind: type[msgspec.Struct], mode: Mode) -> Mode:
    """The form to describe a Struct in: of several that come to the same, one."""
    filled = {field.name for field in fields(kind) if named_by_path(field)}
    if mode == "reply":
        return "nested" if kind.__struct_config__.omit_defaults and not filled else mode
    if filled <= set(NEVER_SENT):
        return "nested"
    return "entry" if mode == "nested" else mode  # what no path names is named where it is said


class Schemas:
    """Collects types and describes them all at once; a Struct is a component under its own name."""

    def __init__(self) -> None:
        self._twins: dict[Any, type] = {}
        self._names: dict[str, Any] = {}

    def of(self, kinds: Sequence[Any]) -> tuple[list[Schema], dict[str, Schema]]:
        """The schema of each of `kinds` (made by `body`, `reply`, `query`), and all components."""
        everything = [*kinds, *self._twins.values()]
        found, components = msgspec.json.schema_components(everything, ref_template=COMPONENTS + "{name}")
        return [tidy(schema) for schema in found[: len(kinds)]], {
            name: tidy(explained(name, components[name])) for name in sorted(components)
        }

    def reply(self, kind: Any, item: Any = None) -> Any:
        """What an operation answers; `item` is what its page or batch holds."""
        if kind is Page:
            return self._page(self.twin(item or Any, "reply"), item)
        if kind is Batch:
            return self._batch(self.twin(item or Any, "reply"), item)
        return self.twin(kind, "reply")

    def body(self, kind: Any) -> Any:
        """What an operation is sent: a document, a Struct, or (`list[…]`) a batch."""
        if kind is Any:
            return OPAQUE
        if get_origin(kind) is list:
            entry: Any = self.twin(get_args(kind)[0], "entry")
            return Annotated[list[entry], Meta(min_length=1, max_length=BATCH_MAX)]
        return self.twin(kind, "body")

    def twin(self, kind: Any, mode: Mode) -> Any:
        """`kind` with every Struct in it exchanged for its twin."""
        origin, args = get_origin(kind), get_args(kind)
        inner: Mode = "nested" if mode in ("body", "entry") else mode
        if kind is msgspec.Raw:
            return OPAQUE
        if origin is Annotated and args[0] is msgspec.Raw and (shape := known(args[1:], "shape")) is not None:
            return self.twin(shape, mode)
        if origin is Annotated and (answers := known(args[1:], "results")) is not None:
            arms = [arm for answer in answers for arm in self._arms(self.twin(answer, "reply"), answer)]
            return list[self._union(list(dict.fromkeys(arms)))]  # type: ignore[misc]
        if origin is Annotated:
            return Annotated[(self.twin(args[0], mode), *args[1:])]
        if origin in (Union, UnionType):
            return self._union([self.twin(arm, inner) for arm in args])
        if origin in (list, dict, tuple, set, frozenset):
            return origin[tuple(arg if arg is ... else self.twin(arg, inner) for arg in args)]
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self._struct(kind, mode)
        return kind

    def _union(self, arms: list[Any]) -> Any:
        if any(arm is OPAQUE or arm is Any for arm in arms):
            return OPAQUE
        structs = [arm for arm in arms if isinstance(arm, type) and issubclass(arm, msgspec.Struct)]
        if len(structs) > 1 and not all(arm.__struct_config__.tag for arm in structs):
            return Annotated[Any, Meta(extra_json_schema={"anyOf": [ref(arm.__name__) for arm in structs]})]
        return Union[tuple(arms)]  # noqa: UP007 (made at run time)

    def _struct(self, kind: type[msgspec.Struct], mode: Mode) -> type:
        form = form_of(kind, mode)
        if (kind, form) not in self._twins:
            config = kind.__struct_config__
            sent = [
                self._field(field, form, config.omit_defaults) for field in fields(kind) if self._is_sent(field, form)
            ]
            self._twins[kind, form] = msgspec.defstruct(
                self._name(kind, form), sent, kw_only=True, tag_field=config.tag_field, tag=config.tag,
                omit_defaults=config.omit_defaults, forbid_unknown_fields=config.forbid_unknown_fields,
                namespace={"__doc__": kind.__doc__},
            )  # fmt: skip
        return self._twins[kind, form]

    @staticmethod
    def _is_sent(field: FieldInfo, mode: Mode) -> bool:
        if mode == "reply" or not named_by_path(field):
            return True
        return mode != "body" and field.name not in NEVER_SENT

    def _field(self, field: FieldInfo, mode: Mode, said_only_if_set: bool) -> tuple[str, Any, Any]:
        kind = self.twin(field.type, "reply" if mode == "reply" else "nested")
        if field.type is msgspec.Raw and field.default is not NODEFAULT:
            return field.name, kind, msgspec.field(name=field.encode_name, default_factory=lambda: None)
        if mode == "entry" and named_by_path(field):
            kind = Annotated[str, Meta(min_length=1)]
            may_lack = {} if field.name == "id" else {"default_factory": lambda: None}  # a lease can say the execution
            return field.name, kind, msgspec.field(name=field.encode_name, **may_lack)
        options = {"default": field.default, "default_factory": field.default_factory}
        if mode == "reply" and not said_only_if_set:
            options = {}
        given = {name: value for name, value in options.items() if value is not NODEFAULT}
        return field.name, kind, msgspec.field(name=field.encode_name, **given)

    def _name(self, kind: type, mode: str) -> str:
        """The Struct's own name; told apart by form, or by capability, where another has it already."""
        plain = kind.__name__ + ("Entry" if mode == "entry" else "")
        capability = kind.__module__.split(".")[1].title()
        for name in (plain, plain + ("Reply" if mode == "reply" else "Body"), capability + plain):
            if self._names.setdefault(name, (kind, mode)) == (kind, mode):
                return name
        raise ValueError(f"three Structs want to be called {plain}")

    def _page(self, item: Any, said: Any) -> Any:
        name = f"{said.__name__}Page" if said else "Page"
        return self._made(name, Page.__doc__, [("items", list[item]), ("next_cursor", str | None)])

    def _batch(self, item: Any, said: Any) -> Any:
        name = said.__name__ if said else "Item"
        return self._made(f"{name}Batch", Batch.__doc__, [("results", list[self._union(self._arms(item, said))])])  # type: ignore[misc]

    def _arms(self, item: Any, said: Any) -> list[Any]:
        """What one result of a batch may be."""
        name = said.__name__ if said else "Item"
        done = self._made(f"{name}Done", "An item that was done.", [("ok", item)])
        return [done, self._made("Refused", "An item that was refused.", [("error", PROBLEM)])]

    def _made(self, name: str, doc: str | None, made: list[tuple[str, Any]]) -> type:
        if name not in self._twins:
            self._names[name] = name
            self._twins[name] = msgspec.defstruct(name, made, namespace={"__doc__": doc})
        return self._twins[name]


def explained(component: str, schema: Schema) -> Schema:
    """A component whose fields have a meaning: their own, or the glossary's for their name."""
    for name, field in schema.get("properties", {}).items():
        meaning, shape = meaning_of(component, name), field.get("description", "")
        if meaning:
            field["description"] = meaning if shape in ("", OPAQUE_MEANING) else f"{meaning} {shape}."
    return schema


def meaning_of(component: str, field: str) -> str | None:
    """What a field means: in this component, in the Struct that it is a form of, or wherever it appears."""
    struct = component.removesuffix("Entry").removesuffix("Reply")
    names = (f"{component}.{field}", f"{struct}.{field}", field)
    return next((MEANINGS[name] for name in names if name in MEANINGS), None)


def tidy(schema: Any) -> Any:
    """Without what only repeats: titles that are the component's name, line breaks of a docstring. What is chosen from
    texts says so, and a tag is a constant: generators make a literal of it, and not a type with a number for a name."""
    if isinstance(schema, list):
        return [tidy(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: tidy(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    if kept.get("type") == "array":
        kept.setdefault("items", {})
    if isinstance(choices := kept.get("enum"), list) and all(isinstance(choice, str) for choice in choices):
        del kept["enum"]
        said = {"enum": choices} if len(choices) > 1 else {"const": choices[0]}
        kept = {"type": "string", **said, **kept}
    if isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].split())
    return kept
