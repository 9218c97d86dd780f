"""An adapter that is away for longer than its handles live, with real processes: every client hears
*unavailable*.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import json
import subprocess
import sys
import threading

import capsign
import pytest
import yaml
from support.dev import Dev

JWT = {"purpose": "jwt", "algorithm": "ES256", "protocol": "jwt"}
PATIENCE_S = 40
BRIEFLY_S = 2.0
"""How long a call waits that cannot be served: an answer that says why comes before its end."""


@pytest.fixture
def brief(short_dir):
    """A deployment all of whose handles live for ten seconds, the least that a policy may say."""
    policy = yaml.safe_load(
        (importlib.resources.files("capsign_cli.dev") / "policy.yaml").read_text()
    )
    for grant in policy["grants"]:
        grant["ttl"] = "10s"
    (short_dir / "policy.yaml").write_text(yaml.safe_dump(policy))
    deployment = Dev(short_dir / "d", arguments=("--policy", str(short_dir / "policy.yaml")))
    yield deployment
    deployment.close()


def ended(signer: capsign.Signer) -> capsign.Unavailable:
    """What the agent says once its handles have ended."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 4):
        try:
            signer.handles(timeout=0.3)
        except capsign.Unavailable as error:
            if "ended" in error.message:
                return error
        pause.wait(0.25)
    raise TimeoutError


def cli(dev: Dev, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "capsign_cli",
        *arguments,
        "--socket",
        dev.socket(),
        "-o",
        "json",
    ]
    return subprocess.run(command, input="message", capture_output=True, text=True, check=False)


def test_an_outage_longer_than_a_handle_lives_is_unavailable_to_every_client(brief):
    """Away for 22 s with handles of 10 s: `Refused HANDLE_EXPIRED`, exit code 1, and "the policy
    has no grant".
    """
    with capsign.Signer(brief.socket()) as signer:
        kept = signer.sign(b"before", **JWT)
        brief.end(brief.adapter())
        assert "adapter" in ended(signer).message
        with pytest.raises(capsign.Unavailable, match=r"UPSTREAM_UNREACHABLE.*adapter"):
            signer.sign(b"during", timeout=BRIEFLY_S, **JWT)
        with pytest.raises(capsign.Unavailable, match="adapter"):
            signer.public_keys(algorithm="ES256", purpose="jwt", protocol="jwt", timeout=BRIEFLY_S)
        with pytest.raises(capsign.Unavailable, match="adapter"):
            signer.verify(b"before", kept, purpose="jwt", protocol="jwt", timeout=BRIEFLY_S)
        with pytest.raises(capsign.Unknown, match="adapter"):
            signer.resolve(kept.intent_id, purpose="jwt", timeout=BRIEFLY_S)

        async def asked() -> None:
            async with capsign.AsyncSigner(brief.socket()) as another:
                with pytest.raises(capsign.Unavailable, match=r"UPSTREAM_UNREACHABLE.*adapter"):
                    await another.sign(b"during", timeout=BRIEFLY_S, **JWT)

        asyncio.run(asked())
        with (
            capsign.Signer(brief.socket(), coalesce=False) as plain,
            pytest.raises(capsign.Unavailable, match="adapter"),
        ):
            plain.sign(b"during", timeout=BRIEFLY_S, **JWT)
        signed = cli(
            brief,
            "sign",
            "-p",
            "jwt",
            "-a",
            "ES256",
            "--protocol",
            "jwt",
            "--timeout",
            str(BRIEFLY_S),
        )
        listed = cli(brief, "handles")
        for done in (signed, listed):
            told = json.loads(done.stderr)["error"]
            assert (done.returncode, told["outcome"], told["reason"]) == (
                4,
                "unavailable",
                "UPSTREAM_UNREACHABLE",
            )
            assert "adapter" in told["message"]
        brief.start_adapter()
        brief.wait_serving(brief.about["adapters"][0]["health"])
        assert signer.sign(
            b"after", **JWT
        ).value  # the first call, with the time that a call has by default
        assert signer.resolve(kept.intent_id, purpose="jwt")
    assert cli(brief, "handles").returncode == 0
