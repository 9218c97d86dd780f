"""The pod's token as the source of an identity: whom the token goes to, what is renewed when, and
what is trusted.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from capsign_agent.identity import trust
from capsign_agent.identity.credentials import Credentials
from capsign_agent.identity.kubernetes import read_token
from capsign_agent.identity.source import IdentityError
from capsign_wire.adapter.v1 import evidence_pb2, identity_pb2
from capsign_wire.settings import SettingsError
from capsign_wire.types.v1 import failures_pb2 as fail
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from support.agent_home import until
from support.agent_pki import ADAPTER_ID, TestCa
from support.black_hole import BlackHole
from support.identity_rigs import KubernetesRig

Changes = AsyncIterator[Credentials]


@pytest.fixture
def rig() -> Iterator[KubernetesRig]:
    root = Path(tempfile.mkdtemp(prefix="cs"))
    one = KubernetesRig(root)
    yield one
    one.close()
    shutil.rmtree(root)


async def following(changes: Changes) -> Credentials:
    async with asyncio.timeout(20):
        return await anext(changes)


async def hindered(rig: KubernetesRig, changes: Changes) -> str:
    """The word of what keeps the next identity from coming."""
    waiting = asyncio.ensure_future(following(changes))
    await until(lambda: rig.identity_events.last_error or waiting.done())
    assert not waiting.done()
    word = rig.identity_events.last_error
    waiting.cancel()
    await asyncio.wait([waiting])
    return word


def authorities(held: Credentials) -> list[str]:
    return [one.subject.rfc4514_string() for one in x509.load_pem_x509_certificates(held.ca)]


def events(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]


async def test_a_request_names_nobody_and_each_has_a_key_of_its_own(rig: KubernetesRig) -> None:
    async with rig.changes() as changes:
        await following(changes)
        rig.replace()
        await following(changes)
    requests = [x509.load_der_x509_csr(one) for one in rig.identity.requests]
    assert all(
        one.is_signature_valid and not list(one.subject) and not list(one.extensions)
        for one in requests
    )
    assert all(isinstance(one.public_key().curve, ec.SECP256R1) for one in requests)
    assert requests[0].public_key() != requests[1].public_key()


async def test_the_token_goes_to_nobody_for_whom_the_bundle_does_not_vouch(
    rig: KubernetesRig,
) -> None:
    rig.bundle = TestCa("authority 1").pem  # the same name, another key
    async with rig.changes() as changes:
        assert await hindered(rig, changes) == "TRUST_OUTDATED"
    assert rig.identity.enrolled == []


async def test_a_clock_that_is_off_is_not_taken_for_another_adapter(rig: KubernetesRig) -> None:
    """It was: people made pods anew, and the clock of their node stayed hours ahead."""
    certificate, key = rig.identity.active.issue(ADAPTER_ID, life=timedelta(hours=-1))
    (rig.root / "old.pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(rig.root / "old.pem")
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context
    )
    rig.targets[:] = [f"127.0.0.1:{server.sockets[0].getsockname()[1]}"]
    try:
        async with rig.changes() as changes:
            assert await hindered(rig, changes) == "CERTIFICATE_ENDED"
    finally:
        server.close()


async def test_an_adapter_that_is_away_is_told_apart_from_one_that_is_another(
    rig: KubernetesRig,
) -> None:
    """A pod from before a reinstallation said what every pod says in an outage, and waited for ever
    for the end of one.
    """
    hole = BlackHole(rig.targets[0])
    rig.targets[:] = [hole.address]
    hole.close()
    async with rig.changes() as changes:
        assert await hindered(rig, changes) == "UPSTREAM_UNREACHABLE"


async def test_a_replica_that_hangs_leaves_time_for_the_next(rig: KubernetesRig) -> None:
    """Replicas are asked in any order, so pods enrol until one of them has met it first."""
    hole = BlackHole(rig.targets[0])
    hole.swallow()
    rig.targets.insert(0, hole.address)
    pods = 0
    try:
        while not hole.swallowed:
            async with rig.changes() as changes:
                await following(changes)
            pods += 1
    finally:
        hole.close()
    assert rig.identity.enrolled == ["token-1"] * pods


@pytest.mark.parametrize(
    ("reason", "most"),
    [(fail.REASON_SERVICE_TOKEN_MISPLACED, 1), (fail.REASON_CLUSTER_UNAVAILABLE, 2)],
    ids=["refused-is-final", "unavailable-is-not"],
)
async def test_a_refusal_is_not_carried_to_the_next_replica(
    rig: KubernetesRig, reason: int, most: int
) -> None:
    rig.targets *= 2
    rig.identity.refuse = reason
    async with rig.changes() as changes:
        waiting = asyncio.ensure_future(following(changes))
        await until(lambda: rig.identity_events.last_error)
        assert len(rig.identity.enrolled) == most
        waiting.cancel()
        await asyncio.wait([waiting])
    kinds = [record.kind for record in rig.records]
    assert (evidence_pb2.AUDIT_KIND_IDENTITY_REFUSED in kinds) == (most == 1)
    assert [record.reason for record in rig.records] == ([reason] if most == 1 else [])


async def test_the_token_is_read_anew_when_the_kubelet_has_swapped_it(rig: KubernetesRig) -> None:
    """As a projected volume does it: the file is a link into a directory that is itself a link,
    which is swapped.
    """
    rig.token = rig.root / "volume" / "token"
    for number in (1, 2):
        folder = rig.root / "volume" / f"..{number}"
        folder.mkdir(parents=True)
        (folder / "token").write_text(f"token-{number}")
    (rig.root / "volume" / "..data").symlink_to("..1")
    rig.token.symlink_to("..data/token")
    async with rig.changes() as changes:
        await following(changes)
        (rig.root / "volume" / "..new").symlink_to("..2")
        (rig.root / "volume" / "..new").rename(rig.root / "volume" / "..data")
        rig.identity.good_tokens = {"token-2"}
        rig.replace()
        await following(changes)
    assert (rig.identity.enrolled, rig.identity.renewed) == (["token-1"], ["token-2"])


async def test_a_renewal_goes_over_the_connection_of_the_certificate(rig: KubernetesRig) -> None:
    async with rig.changes() as changes:
        await following(changes)
        for _ in range(3):
            rig.replace()
            rig.identity.life *= 2  # the certificates are dated by the real clock
            await following(changes)
    assert (len(rig.identity.enrolled), len(rig.identity.renewed)) == (1, 3)


async def test_a_certificate_that_has_ended_is_followed_by_an_enrolment(rig: KubernetesRig) -> None:
    """The adapter refused to renew it until it ended; then there is no connection left to renew
    over.
    """
    async with rig.changes() as changes:
        await following(changes)
        rig.identity.refuse = fail.REASON_SERVICE_TOKEN_REFUSED
        rig.replace()
        waiting = asyncio.ensure_future(following(changes))
        await until(lambda: len(rig.identity.renewed) > 2)
        assert len(rig.identity.enrolled) == 1
        rig.clock.ahead_s += 3600
        rig.identity.life *= 4  # certificates are dated by the real clock
        await until(lambda: len(rig.identity.enrolled) > 1)
        rig.identity.refuse = 0
        await waiting
    assert rig.records[-1].kind == evidence_pb2.AUDIT_KIND_IDENTITY_ISSUED


async def test_past_its_end_nothing_is_renewed(rig: KubernetesRig) -> None:
    async with rig.changes() as changes:
        await following(changes)
        rig.clock.ahead_s += 3700
        rig.identity.life = timedelta(hours=4)
        await following(changes)
    assert (len(rig.identity.enrolled), len(rig.identity.renewed)) == (2, 0)


async def test_a_certificate_that_no_adapter_accepts_any_more_is_replaced_by_enrolling(
    rig: KubernetesRig,
) -> None:
    """The authority was made anew: connections with the old certificate fail, long before it
    ends.
    """
    async with rig.changes() as changes:
        await following(changes)
        rig.identity.roll()
        old = rig.bundle
        rig.identity.authorities = rig.identity.authorities[1:]
        rig.adapter.stop()
        rig.adapter.start()
        assert rig.bundle == old
        rig.replace()
        await following(changes)
    assert (len(rig.identity.enrolled), len(rig.identity.renewed)) == (2, 0)


@pytest.mark.parametrize("spoiled", ["another key", "no certificate", "garbage"])
async def test_a_certificate_that_does_not_fit_is_not_taken(
    rig: KubernetesRig, spoiled: str
) -> None:
    def spoil(svid: identity_pb2.Svid) -> None:
        other = ec.generate_private_key(ec.SECP256R1()).public_key()
        certificate = rig.identity.active.certify(svid.spiffe_id, other, timedelta(hours=1))
        svid.certificates[0] = {
            "another key": certificate,
            "no certificate": b"\x30\x03\x02\x01\x01",
            "garbage": b"?",
        }[spoiled]

    rig.identity.spoil = spoil
    async with rig.changes() as changes:
        assert await hindered(rig, changes) == "CREDENTIALS_UNUSABLE"


async def test_a_clock_that_is_wrong_is_named_and_does_not_make_it_spin(rig: KubernetesRig) -> None:
    rig.clock.ahead_s = 2 * 3600.0
    async with rig.changes() as changes:
        assert await hindered(rig, changes) == "CERTIFICATE_ENDED"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"x" * 8193, b"caf\xc3\xa9"])
def test_what_is_no_token_is_refused_without_being_quoted(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(IdentityError) as caught:
        read_token(path)
    assert caught.value.word == "TOKEN_UNREADABLE"
    assert str(path) in str(caught.value)
    assert "xxx" not in str(caught.value)


def test_a_directory_in_the_place_of_the_token_is_no_token(tmp_path: Path) -> None:
    with pytest.raises(IdentityError):
        read_token(tmp_path)


async def test_neither_token_nor_key_is_ever_logged(
    rig: KubernetesRig, capfd: pytest.CaptureFixture[str]
) -> None:
    rig.token.write_text("very-secret-token")
    async with rig.changes() as changes:
        assert await hindered(rig, changes) == "SERVICE_TOKEN_REFUSED"
    rig.identity.good_tokens.add("very-secret-token")
    async with rig.changes() as changes:
        held = await following(changes)
    said = "".join(capfd.readouterr())
    assert "identity.issued" in said
    assert "very-secret" not in said
    assert held.key.splitlines()[1].decode() not in said


# The trust bundle.


def kept(rig: KubernetesRig) -> Path:
    return rig.root / "state" / "identity" / trust.FILE_NAME


async def test_a_bundle_that_is_announced_comes_with_the_certificate_in_use(
    rig: KubernetesRig,
) -> None:
    async with rig.changes() as changes:
        first = await following(changes)
        assert authorities(first) == ["CN=authority 1"]
        rig.identity.roll()
        rig.made[0].authorities_changed(rig.identity.sequence)
        second = await following(changes)
    assert authorities(second) == ["CN=authority 1", "CN=authority 2"]
    assert (second.certificate, second.key) == (first.certificate, first.key)
    assert trust.decode(kept(rig).read_bytes()) == trust.Trust(2, second.ca)
    assert stat.S_IMODE(kept(rig).stat().st_mode) == 0o600
    assert stat.S_IMODE(kept(rig).parent.stat().st_mode) == 0o700
    assert rig.identity.renewed == []


async def test_a_replica_that_lags_behind_is_asked_again_and_not_in_a_loop(
    rig: KubernetesRig,
) -> None:
    async with rig.changes() as changes:
        await following(changes)
        # told by one replica, not yet known to the one that answers
        rig.made[0].authorities_changed(2)
        waiting = asyncio.ensure_future(following(changes))
        await until(
            lambda: (
                rig.identity_events.last_error == "BUNDLE_LATE" and rig.identity.bundles_asked > 2
            )
        )
        assert not waiting.done()
        rig.identity.roll()
        assert authorities(await waiting) == ["CN=authority 1", "CN=authority 2"]
        assert rig.identity_events.last_error == ""


async def test_a_renewal_brings_the_bundle_too(rig: KubernetesRig) -> None:
    async with rig.changes() as changes:
        await following(changes)
        rig.identity.roll()
        rig.replace()
        held = await following(changes)
    assert authorities(held) == ["CN=authority 1", "CN=authority 2"]
    assert rig.identity.bundles_asked == 0


async def test_an_older_bundle_never_replaces_a_newer_one(
    rig: KubernetesRig, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.identity.roll()
    async with rig.changes() as changes:
        await following(changes)
        rig.identity.authorities, rig.identity.sequence = (
            rig.identity.authorities[:1],
            1,
        )  # restored from a backup
        rig.replace()
        held = await following(changes)
    assert authorities(held) == ["CN=authority 1", "CN=authority 2"]
    assert trust.decode(kept(rig).read_bytes()).sequence == 2
    assert "identity.bundle_older" in events(capsys)


async def test_a_restarted_container_in_an_old_pod_trusts_the_authority_of_today(
    rig: KubernetesRig,
) -> None:
    rig.identity.roll()
    async with rig.changes() as changes:
        await following(changes)
    # by now adapters show certificates of authority 2; the pod was created with authority 1
    rig.identity.retire()
    rig.adapter.stop()
    rig.adapter.start()
    async with rig.changes() as changes:
        held = await following(changes)
    assert authorities(held) == ["CN=authority 2"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other head", "link"])
async def test_a_damaged_file_means_the_injected_bundle_and_is_said(
    rig: KubernetesRig, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.identity.roll()
    async with rig.changes() as changes:
        await following(changes)
    path, data = kept(rig), bytearray(kept(rig).read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage == "link":
        path.symlink_to(rig.token)
    else:
        path.write_bytes(
            {"cut": data[:-9], "flipped": data, "empty": b"", "other head": b"x" + data}[damage]
        )
    store = trust.TrustStore(path.parent, rig.bundle.decode())
    assert store.now == trust.Trust(0, rig.bundle)
    assert events(capsys)[-1] in {"identity.bundle_damaged", "identity.bundle_unreadable"}
    path.unlink()
    async with rig.changes() as changes:
        assert len(authorities(await following(changes))) == 2
    assert trust.decode(path.read_bytes()).sequence == 2


async def test_a_disk_that_refuses_does_not_keep_the_newer_bundle_from_being_used(
    rig: KubernetesRig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    rig.identity.roll()
    async with rig.changes() as changes:
        assert len(authorities(await following(changes))) == 2
    assert not kept(rig).exists()
    assert "identity.bundle_not_kept" in events(capsys)


def test_an_injected_bundle_that_is_none_is_refused_at_the_start(rig: KubernetesRig) -> None:
    rig.bundle = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    with pytest.raises(SettingsError) as caught:
        rig.source()
    assert caught.value.key == "identity.kubernetes.bundle"


def test_a_state_directory_that_cannot_be_made_is_named(rig: KubernetesRig) -> None:
    (rig.root / "state").write_text("a file")
    with pytest.raises(SettingsError, match="state_dir"):
        rig.source()
