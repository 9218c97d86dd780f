"""What a cluster needs beside Kubernetes itself, in one process on the node: names, volumes, and a
door for the test.

* names: a DNS server on the node's address (`names.py` says what it answers);
* volumes: a claim of StorageClass `node` gets a directory of the run directory;
* the door: connections to the test's listener (a loopback port outside of the node's network) go to
  the API server.

    python -m system.cluster.kit.helpers RUN LISTENER        (started by the node's first process)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
from dnslib import DNSError
from system.cluster.kit import names
from system.cluster.kit.layout import API, DOMAIN, NODE, NODE_ADDRESS, Layout

STORAGE_CLASS = "node"
Thing = dict[str, Any]


class Watched:
    """All objects of one kind, kept as the API server has them."""

    def __init__(
        self, session: aiohttp.ClientSession, path: str, changed: Callable[[Thing], None]
    ) -> None:
        self._session = session
        self._path = path
        self._changed = changed
        self.things: dict[str, Thing] = {}

    async def keep(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError, ConnectionError):
                version = await self._list()
                async for event in self._watch(version):
                    self._take(event)
            await asyncio.sleep(0.1)

    async def _list(self) -> str:
        async with self._session.get(API + self._path) as answer:
            answer.raise_for_status()
            listed = await answer.json()
        self.things = {thing["metadata"]["uid"]: thing for thing in listed["items"]}
        for thing in listed["items"]:
            self._changed(thing)
        return listed["metadata"]["resourceVersion"]

    async def _watch(self, version: str) -> AsyncIterator[Thing]:
        query = {"watch": "1", "resourceVersion": version}
        async with self._session.get(
            API + self._path, params=query, timeout=aiohttp.ClientTimeout(total=None)
        ) as answer:
            answer.raise_for_status()
            while line := await answer.content.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":  # our version is too old: list again
                    return
                yield event

    def _take(self, event: Thing) -> None:
        thing = event["object"]
        if event["type"] == "DELETED":
            self.things.pop(thing["metadata"]["uid"], None)
        else:
            self.things[thing["metadata"]["uid"]] = thing
        self._changed(thing)


class NameServer(asyncio.DatagramProtocol):
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._zone: names.Zone = {}
        self._services = Watched(session, "/api/v1/services", self._changed)
        self._slices = Watched(session, "/apis/discovery.k8s.io/v1/endpointslices", self._changed)

    def _changed(self, _: Thing) -> None:
        self._zone = names.zone(
            self._services.things.values(), self._slices.things.values(), DOMAIN
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, sender: Any) -> None:
        with contextlib.suppress(DNSError):  # what is no question gets no answer
            self._transport.sendto(names.answer(data, self._zone, DOMAIN), sender)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=(NODE_ADDRESS, 53))
        await asyncio.gather(self._services.keep(), self._slices.keep())


class VolumeMaker:
    """Makes a `local` volume for each claim (the kubelet applies fsGroup to those). Volumes outlive
    their claims.
    """

    def __init__(self, session: aiohttp.ClientSession, directory: Path) -> None:
        self._session = session
        self._directory = directory
        self._wanted: asyncio.Queue[Thing] = asyncio.Queue()
        self._claims = Watched(session, "/api/v1/persistentvolumeclaims", self._wanted.put_nowait)

    async def serve(self) -> None:
        await self._create(
            "/apis/storage.k8s.io/v1/storageclasses",
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {
                    "name": STORAGE_CLASS,
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                },
                "provisioner": "capsign.test/directory",
                "volumeBindingMode": "Immediate",
                "reclaimPolicy": "Retain",
            },
        )
        await asyncio.gather(self._claims.keep(), self._make_all())

    async def _make_all(self) -> None:
        while True:
            claim = await self._wanted.get()
            if claim["spec"].get("storageClassName") == STORAGE_CLASS and not claim["spec"].get(
                "volumeName"
            ):
                await self._make(claim)

    async def _make(self, claim: Thing) -> None:
        name = f"node-{claim['metadata']['uid']}"
        directory = self._directory / name
        directory.mkdir(exist_ok=True)
        here = [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
                "accessModes": claim["spec"]["accessModes"],
                "storageClassName": STORAGE_CLASS,
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {key: claim["metadata"][key] for key in ("namespace", "name", "uid")},
                "local": {"path": str(directory)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}},
            },
        }
        await self._create("/api/v1/persistentvolumes", volume)

    async def _create(self, path: str, thing: Thing) -> None:
        async with self._session.post(API + path, json=thing) as answer:
            if answer.status != 409:  # it is there already
                answer.raise_for_status()


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        api_reader, api_writer = await asyncio.open_connection(NODE_ADDRESS, 6443)
        try:
            await asyncio.gather(carry(reader, api_writer), carry(api_reader, writer))
        finally:
            api_writer.close()
    except OSError:
        pass
    finally:
        writer.close()


async def main(layout: Layout, listener: socket.socket) -> None:
    trust = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
    trust.load_cert_chain(layout.pki / "helpers.crt", layout.pki / "helpers.key")
    connector = aiohttp.TCPConnector(ssl=trust, limit=0)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=1 << 22) as session:
        await asyncio.start_server(pass_on, sock=listener)
        await asyncio.gather(
            NameServer(session).serve(), VolumeMaker(session, layout.volumes).serve()
        )


if __name__ == "__main__":
    asyncio.run(main(Layout(Path(sys.argv[1])), socket.socket(fileno=int(sys.argv[2]))))
