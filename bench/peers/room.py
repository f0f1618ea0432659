"""The peers' own environment: what the extra `bench` of pyproject.toml names, installed beside ours, never into it."""

import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def wanted() -> list[str]:
    """What to install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return sorted(project["optional-dependencies"]["bench"])


def room() -> Path:
    """The Python of the environment, made when it is not there; another list or Python gets another one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(repr((wanted(), sys.version)).encode()).hexdigest()[:16]
    folder = cache / "holdfast-bench" / name
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted()], check=True)
        done.touch()
    return python


def versions(python: Path, names: list[str]) -> dict[str, str]:
    """What is installed there."""
    program = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    told = subprocess.run([python, "-c", program, *names], check=True, capture_output=True, text=True).stdout
    return dict(zip(names, told.split(), strict=True))
