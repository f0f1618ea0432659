"""A test run that was killed leaves no server behind for long."""

import os
import subprocess
import sys
from pathlib import Path

from tests import leftovers

SERVER = """
import signal, time
signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a test run in a shell's background hands on that it is ignored
print("serving", flush=True)
time.sleep(60)
"""


def test_what_no_living_process_owns_is_cleared_away_with_its_server(tmp_path: Path) -> None:
    left, owned, young = (tmp_path / f"{leftovers.PREFIX}{name}" for name in ("left", "owned", "young"))
    elsewhere = tmp_path / "somebody-elses"
    for folder in (left, owned, young, elsewhere):
        (folder / "data").mkdir(parents=True)
    sleeping = [sys.executable, "-S", "-c", SERVER]
    server = subprocess.Popen([*sleeping, str(left / "data")], stdout=subprocess.PIPE)
    stranger = subprocess.Popen(sleeping, stdout=subprocess.PIPE)
    for process in (server, stranger):
        assert process.stdout is not None
        process.stdout.readline()
    (left / "data" / "postmaster.pid").write_text(f"{server.pid}\n")
    (left / "postmaster.pid").write_text(f"{stranger.pid}\n")  # the number has come to be another's
    for folder in (left, owned, elsewhere):
        os.utime(folder, (1, 1))
    with leftovers.held(owned):
        leftovers.clear(tmp_path)
    assert server.poll() is not None and stranger.poll() is None
    assert {path.name for path in tmp_path.iterdir()} == {owned.name, young.name, elsewhere.name}
    leftovers.clear(tmp_path)
    stranger.kill()
    for process in (server, stranger):
        process.communicate()
    assert not owned.exists() and young.exists()
