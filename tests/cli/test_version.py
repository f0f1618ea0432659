"""`holdfast version` and what the command line loads for it."""

import subprocess
import sys

from service import __version__
from tests.cli.conftest import ROOT, Command, environment

HEAVY = ("rich", "sqlglot", "litestar", "asyncpg", "uvicorn", "structlog", "argon2")
LOADED = f"""
import sys
from service.cli import main
sys.argv = ["holdfast", "version"]
main()
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""


def test_the_version_is_printed_and_nothing_heavy_is_loaded_for_it() -> None:
    command = [sys.executable, "-c", LOADED]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"holdfast {__version__}", ""]


def test_a_command_that_is_not_there_is_refused_in_one_line(holdfast: Command) -> None:
    done = holdfast("serv")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith('holdfast: Unknown command "serv". Did you mean "serve"?')
    done = holdfast("unlike-any")
    assert done.stderr.startswith('holdfast: Unknown command "unlike-any". Available commands: serve, ')
    assert done.stderr.endswith(", audit, ...; see `holdfast --help`\n") and done.stderr.count("\n") == 1
