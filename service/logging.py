"""Logging: lines to stderr, for people (text) or for programs (JSON), with no secret of a token in them.

Libraries' records take the same way as our own, from warnings up: below that they tell what statements carry.
Tracebacks are plain text without local variables, which could hold secrets. Masking comes last, when all is text.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from service.kernel import request_id
from service.tokens.secret import mask

PLAIN = (bool, int, float, type(None))


def set_up(level: str, format: str, stream: TextIO | None = None) -> None:
    """Log from `level` on, as `text` or `json`, to `stream` (stderr), for the whole process."""
    stream = stream or sys.stderr
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        name_request,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = [structlog.processors.format_exc_info, mask_secrets, renderer(format, stream)]
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: Unfailing(stream),
    )
    handler = logging.StreamHandler(stream)
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=first, processors=[strip, *last]))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    logging.getLogger("asyncpg").setLevel(logging.ERROR)  # of a store that is away our own lines tell, in one each


class Unfailing(structlog.WriteLogger):
    """Writes lines, or loses them: a full disk or a closed pipe under the log is no reason to fail a request."""

    def msg(self, message: str) -> None:
        """Write a line if that can be done."""
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def name_request(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """The event with the id of the request that it happened in, if it was in one."""
    if current := request_id.current():
        event["request_id"] = current.decode()
    return event


def renderer(format: str, stream: TextIO) -> Processor:
    """What makes a line of an event: one JSON object, or columns for people (in colour on terminals, if allowed)."""
    if format == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    plain = structlog.dev.plain_traceback
    colours = stream.isatty() and not os.environ.get("NO_COLOR")
    return structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)


def mask_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """The event with the secret of everything token-shaped hidden, however deep in it."""
    return {name: masked(value) for name, value in event.items()}


def masked(value: Any) -> Any:
    """`value` as a renderer may have it: what is neither plain nor a collection becomes its text, masked."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {mask(str(name)): masked(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(one) for one in value]
    return mask(repr(value))
