"""The client for many connections: Debian's `wrk`, fed from a file by a Lua script.

It costs a few microseconds of CPU a request. One thread is enough for 64 connections, and on two cores a second one
would only take the server's. `wrk` counts answers above 399 as errors and does not look into bodies: where a 200 may
hold a refusal, the job belongs to `load`. As always with `wrk`, its percentiles are corrected for stalls: one counts as
all the requests that it held up.
"""

import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from bench.job import Job, Outcome

WIDTH = 8
LUA = """
local ffi = require("ffi")
ffi.cdef[[ typedef struct { long s; long ns; } bench_time; int clock_gettime(int, bench_time *); ]]
local function clock()
  local t = ffi.new("bench_time")
  ffi.C.clock_gettime(1, t)
  return tonumber(t.s) + tonumber(t.ns) / 1e9
end
local requests, again, one, calls = io.open("@PATH@", "rb"), @AGAIN@, nil, 0
began, ended = 0, 0
local function next_request()
  if one then return one end
  local length = requests:read(@WIDTH@)
  if not length and again then
    requests:seek("set", 0)
    length = requests:read(@WIDTH@)
  end
  return length and requests:read(tonumber(length))
end
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() if again and @COUNT@ == 1 then one = next_request() end end
function request()
  calls = calls + 1
  if calls == 2 then began = clock() end -- the first call is wrk looking whether the script works; nothing is sent
  local found = next_request()
  if found then return found end
  if ended == 0 then ended = clock() end
  wrk.thread:stop()
  return ""
end
function done(summary, latency)
  local e, t = summary.errors, threads[1]
  local took = summary.duration / 1e6
  local ran_out = t:get("ended") > 0
  if ran_out then took = t:get("ended") - t:get("began") end
  io.write(string.format(
    '\\nBENCH {"requests":%d,"seconds":%.6f,"p50":%.3f,"p99":%.3f,"status":%d,"broken":%d,"ran_out":%s}\\n',
    summary.requests, took, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, e.status,
    e.connect + e.read + e.write + e.timeout, ran_out and "true" or "false"))
end
"""


def there() -> bool:
    """Whether `wrk` is installed."""
    return shutil.which("wrk") is not None


def run(job: Job) -> Outcome:
    """Run the job for a whole number of seconds (rounded up); what is under way at the end is not counted."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        requests, script = Path(folder, "requests"), Path(folder, "job.lua")
        with requests.open("wb") as out:
            # Called once before the first connection: the first request is never sent, so it is written twice.
            feed(out, job.requests if job.again else [job.requests[0], *job.requests])
        script.write_text(fill(path=requests, again=str(job.again).lower(), width=WIDTH, count=len(job.requests)))
        return read(
            subprocess.run(
                ["wrk", "-t1", f"-c{job.connections}", f"-d{math.ceil(job.seconds)}s", "--timeout", "30s", "-s", script,
                 f"http://127.0.0.1:{job.port}/"],
                capture_output=True, text=True, check=True, timeout=job.seconds + 60,
            ).stdout
        )  # fmt: skip


def fill(**values: object) -> str:
    """The Lua script with its holes filled."""
    text = LUA
    for name, value in values.items():
        text = text.replace(f"@{name.upper()}@", str(value))
    return text


def feed(out: BinaryIO, requests: Iterable[bytes]) -> None:
    """Write requests as the script reads them: a length of fixed width, then the bytes."""
    for request in requests:
        out.write(b"%0*d" % (WIDTH, len(request)))
        out.write(request)


def read(printed: str) -> Outcome:
    """What the script printed."""
    line = next((line for line in printed.splitlines() if line.startswith("BENCH ")), None)
    if line is None:
        raise RuntimeError(f"wrk said nothing of use: {printed[-500:]}")
    found = json.loads(line.removeprefix("BENCH "))
    errors = found["status"] + found["broken"]
    said = f"{found['status']} answers above 399, {found['broken']} broken or timed out" if errors else ""
    return Outcome(
        found["requests"], found["seconds"], found["p50"], found["p99"], errors, said, ran_out=found["ran_out"]
    )
