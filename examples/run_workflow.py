"""Run a workflow on Holdfast with four worker processes, kill one of them, and see that nothing is lost.

python examples/run_workflow.py                                     its own server on a temporary SQLite file
python examples/run_workflow.py --database-url postgresql://…       its own server on Postgres
python examples/run_workflow.py --url http://… --token holdt_…      a server that runs already
python examples/run_workflow.py --ir some.json --executions 500     another workflow, more of it
"""

import argparse
import contextlib
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from workflow.client import Client
from workflow.crew import Crew
from workflow.graph import Graph
from workflow.report import Report, report
from workflow.server import access, ended, parsed

ORDER = Path(__file__).parent / "workflow" / "order.json"


def main() -> int:
    """Run it; 0 when every execution completed and every history replays to its state."""
    options = arguments()
    ir = json.loads(options.ir.read_text("utf-8"))
    with access(options) as found, contextlib.closing(Client(found.url, found.token)) as client:
        told = run(client, ir, options)
    print(told.table())
    return 0 if told.whole else 1


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ir", type=Path, default=ORDER, metavar="FILE", help="a valid workflow IR")
    parser.add_argument("--executions", type=int, default=100, metavar="N")
    parser.add_argument("--workers", type=int, default=4, metavar="N")
    parser.add_argument("--lease-ms", type=int, default=2_000, metavar="MS")
    return parsed(parser)


def run(client: Client, ir: dict[str, Any], options: argparse.Namespace) -> Report:
    """Register, start, work, lose a worker, recover, verify."""
    name = f"example-{uuid.uuid4().hex[:8]}"
    register(client, ir)
    began = time.monotonic()
    executions = start(client, ir, name, options.executions)
    crew = Crew(client, name, options.lease_ms, ir, options.workers)
    try:
        lose_one(crew, options.executions * Graph(ir).shortest() // 3)
        wait(client, name, began + options.timeout)
        seconds = time.monotonic() - began
    finally:
        crew.dismiss()
    return report(client, name, executions, seconds)


def register(client: Client, ir: dict[str, Any]) -> None:
    """Store the definition; the same one again changes nothing."""
    stored = client.put(f"/v1/definitions/{ir['workflow_id']}/{ir['version']}?snapshot_events=20", ir)
    print(f"definition {stored['workflow_id']}/{stored['version']}: {'stored' if stored['created'] else 'known'}")


def start(client: Client, ir: dict[str, Any], name: str, count: int) -> list[str]:
    """Start the executions, each with its first work item; their ids."""
    named = {"workflow_id": ir["workflow_id"], "version": ir["version"], "start": {"queue": name}}
    bodies = [named | {"execution_id": f"{name}-{number}", "input": order(number)} for number in range(count)]
    for first in range(0, count, 1000):
        for result in client.post("/v1/executions:batch", bodies[first : first + 1000])["results"]:
            if "error" in result:
                raise SystemExit(f"an execution was refused: {result['error']['detail']}")
    print(f"executions: {count} started")
    return [body["execution_id"] for body in bodies]


def order(number: int) -> dict[str, Any]:
    """An order: every fourth card fails twice; the first order takes longer than a lease to ship."""
    found = {"order": number, "amount": number * 37 % 100, "card_fails": 2 if number % 4 == 1 else 0}
    return found | ({"slow": "ship"} if number == 0 else {})


def lose_one(crew: Crew, after: int) -> None:
    """Once so many transitions are made, kill a worker that holds leases and put another in its place."""
    end = time.monotonic() + 30
    while crew.transitions() < after and time.monotonic() < end:
        time.sleep(0.005)
    struck = crew.strike()
    if struck is None:
        print("no worker was caught holding a lease; none was killed")
        return
    print(f"killed {struck[0]} with {struck[1]} of its leases open; {crew.hire()} takes its place")


def wait(client: Client, queue: str, end: float) -> None:
    """Wait until the queue holds nothing that is open: all progress is made by its items, so then all is done."""
    opened = f"queue = '{queue}' AND status IN ('ready', 'delayed', 'leased')"
    while client.get("/v1/work-items", filter=opened, limit=1)["items"]:
        if time.monotonic() > end:
            print("giving up: the time is over")
            return
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(ended(main))
