"""Values that stand in a query or a header: text, as JSON would have them."""

import re
from typing import Annotated, Any, get_args, get_origin

import msgspec

INTEGER = re.compile(r"0|-?[1-9][0-9]*")
BOOLEANS = {"true": True, "false": False}


def of_text(text: str, kind: Any) -> Any:
    """The value of a type that a text stands for. Raises `msgspec.ValidationError`.

    msgspec alone would take `1e1` for 10, and `TRUE` and `1` for true, which the contract knows nothing of.
    """
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if plain is int and INTEGER.fullmatch(text) is None:
        raise msgspec.ValidationError("Expected a whole number in decimal digits")
    if plain is bool:
        if text not in BOOLEANS:
            raise msgspec.ValidationError("Expected `true` or `false`")
        return BOOLEANS[text]
    return msgspec.convert(text, kind, strict=False)
