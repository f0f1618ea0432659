"""The commands on the pages for users do what the pages say, on a real server.

`curl` is a few lines of Python here: a machine that runs the tests needs Python and a shell, and nothing else.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, SECONDS, start

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
CURL = '''#!{python}
"""What the pages use of curl."""
import sys, urllib.error, urllib.request
words, method, headers, body, url = iter(sys.argv[1:]), None, {{}}, None, ""
for word in words:
    if word == "-X":
        method = next(words)
    elif word == "-H":
        name, _, value = next(words).partition(": ")
        headers[name] = value
    elif word == "-d":
        body = next(words).encode()
    elif word != "-s":
        url = word
request = urllib.request.Request(url, body, headers, method=method)
try:
    print(urllib.request.urlopen(request).read().decode(), end="")
except urllib.error.HTTPError as error:
    sys.exit(f"{{url}}: {{error.code}} {{error.read().decode()}}")
'''


def blocks(page: str, after: str) -> list[str]:
    """The commands of a page, from a heading to the next."""
    text = (ROOT / page).read_text("utf-8").partition(f"\n## {after}\n")[2].partition("\n## ")[0]
    return BLOCK.findall(text)


def run(folder: Path, *commands: str) -> list[dict[str, object]]:
    """What the commands of pages print, on a new store: the JSON of each answer that is not put into a variable."""
    with start(folder, "serve") as server:
        where = server.url, server.tokens[0]
        first = commands[0].replace("http://127.0.0.1:7400", where[0]).replace("holds_…", where[1])
        assert all(word in first for word in where), "the page names the server and the token as it did"
        curl = folder / "curl"
        curl.write_text(CURL.format(python=sys.executable))
        curl.chmod(0o755)
        script = "\n".join(["set -eu -o pipefail", first, *commands[1:]])
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, timeout=SECONDS, check=False,
            env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


def test_the_two_minutes_of_the_readme(tmp_path: Path) -> None:
    said = run(tmp_path, *blocks("README.md", "Two minutes"))
    assert said[-1]["status"] == "completed"
    assert said[-1]["state"] == {"greeted": "Ada"}


def test_the_order_by_hand(tmp_path: Path) -> None:
    said = run(tmp_path, blocks("README.md", "Two minutes")[0], *blocks("docs/engine.md", "One order, by hand"))
    assert said[-1]["status"] == "completed"
    assert said[-1]["result"] == {"receipt": "r-1"}
    events = said[-2]["items"]
    assert isinstance(events, list)
    assert [event["kind"] for event in events] == [
        "execution.started", "activity.scheduled", "timer.scheduled", "activity.completed", "timer.cancelled",
        "execution.completed",
    ]  # fmt: skip


def test_a_namespace_and_a_worker_by_hand(tmp_path: Path) -> None:
    made = [block for heading in CARRIED["docs/engine.md"][1:] for block in blocks("docs/engine.md", heading)]
    namespace, execution, registered, heard = run(tmp_path, blocks("README.md", "Two minutes")[0], *made)
    assert (namespace["name"], namespace["created"]) == ("staging", True)
    assert execution["created"] is True
    assert (registered["created"], heard["created"]) == (True, False)


CARRIED = {
    "README.md": ["Two minutes"],
    "docs/engine.md": ["One order, by hand", "Namespaces", "Who works, and how it stands"],
}
"""The parts of the pages whose commands are carried out above."""


@pytest.mark.parametrize("name", ["README.md", "docs/engine.md"])
def test_every_command_of_a_page_is_carried_out_or_is_a_set_up(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    carried = [block for heading in CARRIED[name] for block in blocks(name, heading)]
    others = [block for block in BLOCK.findall(text) if block not in carried]
    assert not [block for block in others if "hold /v1" in block]
