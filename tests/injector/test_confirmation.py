"""A bundle is given to pods only once an adapter that serves has shown a certificate of it."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from capsign_injector import settings
from capsign_injector.certificate import mounted
from capsign_injector.replica import Injector
from capsign_injector.serve.webhook import NoTrustBundleError
from capsign_injector.settings import Adapter
from capsign_injector.trust.confirmation import Confirmation
from capsign_injector.watched_files import FileError
from support import injector_rig as rig
from support.ca import Authority

NAME = "capsign-adapter.capsign-system.svc"
HOUR = timedelta(hours=1)


@asynccontextmanager
async def adapter(
    directory: Path, authority: Authority, name: str = NAME, port: int = 0, life: timedelta = HOUR
):
    """Speaks TLS 1.3 as the enrolment listener does; gives host:port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(dns=(name,), life=life).write(directory, "serving"))
    context.set_alpn_protocols(["h2"])

    def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(leave, "127.0.0.1", port, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


class Bundle:
    def __init__(self, directory: Path, *authorities: Authority) -> None:
        self.path = directory / "bundle.pem"
        self.write(*authorities)
        self.watched = mounted.trust_bundle(str(self.path))

    def write(self, *authorities: Authority) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_bytes(b"".join(one.certificate for one in authorities))
        beside.rename(self.path)

    def asking(self, *targets: str) -> Confirmation:
        return Confirmation(Adapter(enrolment_targets=targets, server_name=NAME), self.watched)


async def test_the_bundle_of_an_installation_that_is_gone_is_not_given_to_pods(tmp_path):
    """The claim was deleted with the authority, the ConfigMap stayed, and the volume of the new
    adapter took 20 s to bind: for so long the injector was ready with the old bundle, and the pods
    that got it hung in `Init` for ever.
    """
    old, new = Authority("old"), Authority("new")
    bundle = Bundle(tmp_path, old)
    confirmation = bundle.asking("127.0.0.1:1")
    await confirmation.look()
    assert "127.0.0.1:1 does not answer" in str(confirmation.fault())
    async with adapter(tmp_path, new) as target:
        confirmation = bundle.asking(target)
        assert "not been asked yet" in str(confirmation.fault())
        await confirmation.look()
        assert f"the one at {target} has a certificate that it does not vouch for" in str(
            confirmation.fault()
        )
        bundle.write(new)
        assert confirmation.fault() is not None
        await confirmation.look()
        assert confirmation.fault() is None


async def test_what_was_confirmed_stays_so_in_an_outage_and_ends_with_another_adapter(tmp_path):
    first, second = Authority("first"), Authority("second")
    bundle = Bundle(tmp_path, first)
    async with adapter(tmp_path, first) as target:
        confirmation = bundle.asking(target)
        await confirmation.look()
        assert confirmation.fault() is None
    await confirmation.look()
    assert confirmation.fault() is None, (
        "new pods wait for the end of an outage; they are not refused"
    )
    async with adapter(tmp_path, second, port=int(target.rpartition(":")[2])):
        await confirmation.look()
        assert "does not vouch for" in str(confirmation.fault())


async def test_a_clock_that_is_off_takes_back_no_confirmation(tmp_path):
    """The injector's node was an hour ahead, and no pod could be made on any."""
    authority = Authority()
    bundle = Bundle(tmp_path, authority)
    async with adapter(tmp_path, authority) as target:
        confirmation = bundle.asking(target)
        await confirmation.look()
    async with adapter(tmp_path, authority, port=int(target.rpartition(":")[2]), life=-HOUR):
        await confirmation.look()
        assert confirmation.fault() is None
        fresh = bundle.asking(target)
        await fresh.look()
        assert "not valid by this node's clock" in str(fresh.fault())


async def test_one_replica_that_confirms_is_enough_and_the_name_counts(tmp_path):
    authority = Authority()
    bundle = Bundle(tmp_path, Authority("next"), authority)
    async with (
        adapter(tmp_path, authority, name="somebody.else.svc") as wrong,
        adapter(tmp_path, authority) as right,
    ):
        confirmation = bundle.asking(wrong)
        await confirmation.look()
        assert "not valid for" in str(confirmation.fault())
        confirmation = bundle.asking("127.0.0.1:1", wrong, right)
        await confirmation.look()
        assert confirmation.fault() is None


async def test_without_a_bundle_there_is_nothing_to_confirm(tmp_path):
    bundle = Bundle(tmp_path)
    confirmation = bundle.asking("127.0.0.1:1")
    await confirmation.look()
    with pytest.raises(FileError, match="holds no certificate"):
        confirmation.fault()


def injector(directory: Path, **more: object) -> Injector:
    """A replica that serves a certificate already."""
    _, leaf = rig.authority_and_leaf(int(time.time()))
    server = {"listen": "127.0.0.1:0", "health": "127.0.0.1:0", **rig.write(directory, leaf)}
    text = yaml.safe_dump({"bundle_file": str(directory / "bundle.pem"), "server": server, **more})
    return Injector(settings.parse(text.encode(), "x"))


async def test_a_replica_is_not_ready_and_refuses_what_reaches_it_until_then(tmp_path):
    authority = Authority()
    Bundle(tmp_path, authority)
    async with adapter(tmp_path, authority) as target:
        one = injector(tmp_path, adapter={"enrolment_targets": [target], "server_name": NAME})
        assert one.confirmation is not None
        assert one.health.faults() == [
            "No adapter has confirmed the trust bundle: it has not been asked yet."
        ]
        with pytest.raises(NoTrustBundleError, match="No adapter has confirmed"):
            one.answer_review(rig.review({"capsign.dev/inject": "true"}))
        await one.confirmation.look()
        assert one.health.faults() == []
        assert one.answer_review(rig.review({"capsign.dev/inject": "true"})).outcome == "injected"


async def test_where_identities_come_from_elsewhere_no_bundle_is_needed(tmp_path):
    one = injector(
        tmp_path, identity={"source": "workload-api", "csi": {"driver": "csi.spiffe.io"}}
    )
    assert one.confirmation is None
    assert one.health.faults() == []
    assert one.answer_review(rig.review({"capsign.dev/inject": "true"})).outcome == "injected"
