"""What a server and the commands load that is not ours, for `tests/forked.py` to fork from."""

import gc
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

LIBRARIES = (argon2, asyncpg, cronsim, cyclopts, httptools, litestar, msgspec, structlog, tomllib, uvicorn, zoneinfo)

gc.freeze()
