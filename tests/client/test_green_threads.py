"""gevent and eventlet, whose threads are none: a call works, or says at once in words that it
cannot.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

WITH_GEVENT = """
import sys
order = sys.argv[1]
if order == "before":
    from gevent import monkey; monkey.patch_all()
import capsign
signer = capsign.Signer(timeout=20)
if order == "used":
    signer.sign(b"m", purpose="mail", algorithm="Ed25519")
if order != "before":
    from gevent import monkey; monkey.patch_all()
import gevent
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.001)
gevent.spawn(tick)
def one(n):
    return signer.sign(b"%d" % n, purpose="mail", algorithm="Ed25519", timeout=15)
assert one(0).value
jobs = [gevent.spawn(one, n) for n in range(50)]
gevent.joinall(jobs)
assert all(job.value is not None for job in jobs), [job.exception for job in jobs]
assert len({job.value.intent_id for job in jobs}) == 50
assert len(ticks) > 2  # others went on meanwhile
assert signer.public_keys(purpose="mail", algorithm="Ed25519")
signer.close()
print("done")
"""

WITH_EVENTLET = """
import sys, types
# What eventlet.monkey_patch() leaves for others to ask, without its harm to this test.
patcher = types.ModuleType("eventlet.patcher")
patcher.is_monkey_patched = lambda name: name == "thread"
import capsign
signer = capsign.Signer() if sys.argv[1] == "sync" else capsign.AsyncSigner()
sys.modules["eventlet.patcher"] = patcher
try:
    if sys.argv[1] == "sync":
        signer.sign(b"m", purpose="mail", algorithm="Ed25519")
    else:
        import asyncio
        asyncio.run(signer.sign(b"m", purpose="mail", algorithm="Ed25519"))
except RuntimeError as error:
    print(error)
"""

ASYNC_WITH_GEVENT = """
from gevent import monkey; monkey.patch_all()
import asyncio, capsign
try:
    asyncio.run(capsign.AsyncSigner().sign(b"m", purpose="mail", algorithm="Ed25519"))
except RuntimeError as error:
    print(error)
"""

needs_gevent = pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None, reason="needs gevent (requirements/dev.lock)"
)


def run(code, agent, *arguments):
    environment = {**os.environ, "CAPSIGN_SOCKET": str(agent.path)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@needs_gevent
@pytest.mark.parametrize("order", ["before", "after", "used"])
def test_greenlets_sign_side_by_side_whenever_gevent_came(agent, order):
    """`sign(timeout=3)` never returned: the one thread that there was waited inside gRPC."""
    done = run(WITH_GEVENT, agent, order)
    assert done.stdout.strip() == "done", done.stderr[-2000:]


@needs_gevent
def test_an_async_signer_among_greenlets_says_that_it_cannot(agent):
    assert "capsign.Signer there" in run(ASYNC_WITH_GEVENT, agent).stdout


@pytest.mark.parametrize("client", ["sync", "async"])
def test_under_eventlet_a_call_says_at_once_that_it_cannot(agent, client):
    done = run(WITH_EVENTLET, agent, client)
    assert "eventlet" in done.stdout, done.stderr
    assert "never return" in done.stdout
