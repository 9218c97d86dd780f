"""Forks, exits and objects that nobody closed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import capsign
import pytest

THREE_LINES = """
import capsign
signer = capsign.Signer()
signature = signer.sign(b"...", purpose="jwt", algorithm="ES256")
print(len(signature.jose))
"""

FORKING = """
import os, sys, capsign
signer = capsign.Signer(timeout=8, coalesce=sys.argv[1] == "stream")
first = signer.sign(b"parent", purpose="mail", algorithm="Ed25519")
pid = os.fork()
if pid == 0:
    signature = signer.sign(b"child", purpose="mail", algorithm="Ed25519")
    signer.verify(b"child", signature, purpose="mail")
    os._exit(7)
_, status = os.waitpid(pid, 0)
again = signer.sign(b"parent", purpose="mail", algorithm="Ed25519", intent_id=first.intent_id)
print(os.waitstatus_to_exitcode(status), again == first)
"""


def run(code, agent, *arguments):
    environment = {**os.environ, "CAPSIGN_SOCKET": str(agent.path)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_a_program_that_never_closes_its_signer_ends_quietly(agent):
    result = run(THREE_LINES, agent)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "64", "")


@pytest.mark.parametrize("mode", ["stream", "unary"])
def test_a_signer_works_on_both_sides_of_a_fork(agent, mode):
    result = run(FORKING, agent, mode)
    assert (result.returncode, result.stdout.strip()) == (0, "7 True"), result.stderr


def test_a_signer_that_is_dropped_takes_its_thread_along(agent):
    signer = capsign.Signer(agent.path)
    signer.sign(b"m", purpose="mail", algorithm="Ed25519")
    (reader,) = [thread for thread in threading.enumerate() if thread.name == "capsign-stream"]
    del signer
    gc.collect()
    reader.join(5)
    assert not reader.is_alive()


def test_an_async_signer_serves_one_loop_after_another(agent):
    import asyncio

    signer = capsign.AsyncSigner(agent.path)

    async def one():
        return await signer.sign(b"m", purpose="mail", algorithm="Ed25519")

    assert asyncio.run(one())
    assert asyncio.run(one())
