"""Documents that are drawn from the code: `python -m tests.tidy.documents` writes them, a test holds them equal.

`docs/errors.md`, `docs/events.md` and `docs/settings.md` are drawn whole; `docs/architecture.md` has places, between
`<!-- drawn: name -->` and `<!-- end -->`, for the status tables.
"""

import re
from collections.abc import Callable
from pathlib import Path

from service.errors import CODES
from service.executions.model import STATUS
from service.http.remedies import REMEDIES
from service.settings import as_markdown
from service.work.model import OPEN, shown_status
from tests.tidy.events import events

DOCS = Path(__file__).parents[2] / "docs"
PLACE = re.compile(r"(<!-- drawn: (\w+) -->\n).*?(<!-- end -->)", re.S)
WORK = {
    "ready": ("may be claimed now", "leased, cancelled, dead"),
    "delayed": ("may be claimed from `ready_at` on", "ready, leased, cancelled, dead"),
    "leased": ("a worker holds it, under an epoch, until `expires_at`", "completed, ready, delayed, dead, cancelled"),
    "completed": ("done", "nothing"),
    "dead": ("out of attempts, not to be retried, or given up: a dead letter", "ready, delayed, discarded"),
    "cancelled": ("withdrawn; a holder has lost its fence", "nothing"),
    "discarded": ("a dead letter that was put away", "nothing"),
}
"""Every status of a work item: what it means, what may follow."""


def errors() -> str:
    """The whole of `docs/errors.md`."""
    head = (
        "# Errors\n\n"
        "Every refusal is `application/problem+json` (RFC 9457): `type` (`/problems/<code>`), `title`, `status`,\n"
        "`detail` (what is, what was offered, what to do next), `code`, and the facts that a program needs. A code\n"
        "never changes its meaning. "
        "`Retry-After` comes with `retry_after`; `errors` lists everything that is wrong, each with a JSON pointer.\n\n"
        "This page is drawn from `service/errors.py` and `service/http/remedies.py`.\n\n"
        "| Code | Status | Title | What to do |\n|---|---|---|---|\n"
    )
    return head + "".join(
        f"| `{code}` | {status} | {title} | {REMEDIES.get(code, '').replace('|', chr(92) + '|')} |\n"
        for code, (status, title) in CODES.items()
    )


def executions() -> str:
    """The status machine of an execution, as Mermaid."""
    return f"```mermaid\n{STATUS.drawn()}\n```\n"


def work() -> str:
    """The statuses of a work item."""
    lines = [
        f"| `{status}` | `{shown_status(status)}` | {'yes' if status in OPEN else 'no'} | {meaning} | {follows} |\n"
        for status, (meaning, follows) in WORK.items()
    ]
    return "| Status | Shown as | Open | Means | May become |\n|---|---|---|---|---|\n" + "".join(lines)


WHOLE: dict[str, Callable[[], str]] = {"errors.md": errors, "events.md": events, "settings.md": as_markdown}
PLACES: dict[str, Callable[[], str]] = {"executions": executions, "work": work}


def filled(text: str) -> str:
    """A document with every place drawn anew."""
    return PLACE.sub(lambda found: found.group(1) + PLACES[found.group(2)]() + found.group(3), text)


def main() -> None:
    """Write them all."""
    for name, draw in WHOLE.items():
        (DOCS / name).write_text(draw(), "utf-8")
    for path in DOCS.rglob("*.md"):
        path.write_text(filled(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
