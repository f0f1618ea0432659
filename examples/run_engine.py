"""Run five workflows on Holdfast by replaying their logs, with workers that may die at any step.

python examples/run_engine.py                                     its own server on a temporary SQLite file
python examples/run_engine.py --database-url postgresql://…       its own server on Postgres
python examples/run_engine.py --url http://… --token holdt_…      a server that runs already
python examples/run_engine.py --die-at 60                         each worker is killed at its 60th step and replaced
"""

import argparse
import contextlib
import sys
import time
import uuid

from engine import cases
from engine.crew import Crew
from engine.report import Told, ended, table, told
from workflow import server
from workflow.client import Client
from workflow.server import Access, access, parsed


def main() -> int:
    """Run them; 0 when every execution came out right and did nothing twice."""
    options = arguments()
    with access(options) as found, contextlib.closing(Client(found.url, found.token)) as client:
        began = time.monotonic()
        results = run(client, found, options)
    print(table(results))
    print(f"{time.monotonic() - began:.1f} s")
    for line in (line for one in results for line in one.wrong):
        print(line)
    return 1 if any(one.wrong for one in results) else 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=1, metavar="N", help="start everything so many times")
    parser.add_argument("--width", type=int, default=100, metavar="N", help="how many activities fan out")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--die-at", type=int, default=0, metavar="N", help="kill each worker at its N-th step")
    return parsed(parser)


def run(client: Client, found: Access, options: argparse.Namespace) -> list[Told]:
    """Start, work, wait, read the logs."""
    name = f"engine-{uuid.uuid4().hex[:8]}"
    asked = cases.cases(True, options.width) * options.times
    started = [cases.start(client, case, f"{name}-{at}", name) for at, case in enumerate(asked)]
    print(f"executions: {len(started)} started")
    crew = Crew(found.url, found.token, name, options.workers, options.die_at)
    try:
        wait(client, crew, started, time.monotonic() + options.timeout)
    finally:
        cleanly = crew.dismiss()
    print(f"workers: {crew.hired} hired, {crew.died} killed, the others left {'cleanly' if cleanly else 'BY FORCE'}")
    return [told(client, case, id) for case, id in zip(asked, started, strict=True)]


def wait(client: Client, crew: Crew, started: list[str], end: float) -> None:
    """Until every workflow has ended, each in the last run of its chain; workers that died are replaced."""
    for id in started:
        while not ended(client, id):
            if time.monotonic() > end:
                print("giving up: the time is over")
                return
            crew.replace_dead()
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(server.ended(main))
