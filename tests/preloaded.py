"""What a server and the commands load, for `tests/forked.py` to fork from. What a module of ours draws by chance as it
is loaded is drawn anew in each process; tests/tidy/test_forked.py finds what else is.
"""

import gc
import os
import secrets
import tomllib
import zoneinfo

import argon2
import asyncpg
import cronsim
import cyclopts
import httptools
import litestar
import msgspec
import structlog
import uvicorn
import uvicorn.protocols.http.httptools_impl
import uvloop

import service.cli.commands
import service.cli.first_token
import service.cli.refused
import service.cli.serve
import service.main
from backends.statements import load
from service import capabilities
from service.kernel import ids, request_id

LIBRARIES = (
    argon2, asyncpg, cronsim, cyclopts, httptools, litestar, msgspec, structlog, tomllib, uvicorn, uvloop, zoneinfo,
)  # fmt: skip
OURS = (service.main, capabilities.rules(), capabilities.endpoints(), load("sqlite"), load("postgres"))
"""With them come all the modules of a server that is ready."""


def draw_anew() -> None:
    """Two processes are not to make the same ids."""
    ids.generator.seed()
    request_id._ours = secrets.token_hex(6).encode()


os.register_at_fork(after_in_child=draw_anew)
gc.freeze()
