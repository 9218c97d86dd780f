"""`python -m bench.evidence_scale --records 10000000`: what investigations take in a large log.

A store is filled as a fleet fills it, ten days of two hundred workloads, and asked what a responder
asks. With `--sign` two deployments sign in turns, one of which has that log behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from statistics import median

import msgspec
from capsign_adapter.model.evidence import Checkpoint
from capsign_adapter.store.sqlite import SqliteStore, create_sqlite
from capsign_evidence.archive import Archive, open_archive
from capsign_evidence.archive.scan import Looked, find
from capsign_evidence.archive.selection import Selection, select
from capsign_evidence.checkpoint import sign_checkpoint
from capsign_evidence.leaf_reader import Signed, decode
from capsign_evidence.merkle import leaf_hash
from capsign_evidence.note import VerifierKey
from capsign_evidence.proofs import TreeReader, verify_inclusion
from capsign_evidence.reconcile.state import State
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.deployment import Deployment
from bench.evidence_filler import Filler, summarise

DAYS = 10
DAY_MS = 86_400_000
START_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
LOG = VerifierKey("bench.example/log", KEY.public_key().public_bytes_raw())


def main() -> None:
    arguments = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="capsign-scale-", dir=arguments.dir) as scratch:
        _tell("records", arguments.records)
        if arguments.sign:
            large = _deployed(Path(scratch) / "large", arguments.records)
            place, key = _store_of(large), large.description["log_key"]
        else:
            large, place, key = None, Path(scratch) / "store.db", LOG.text()
            create_sqlite(place)
            _fill(place, arguments.records)
            _checkpoint(place)
        _sizes(place, arguments.records)
        with open_archive(place) as archive:
            _questions(archive)
            _proofs(archive)
        _command(place, key)
        if large is not None:
            _sign(large, Path(scratch), arguments.records, arguments.sign)


def _deployed(directory: Path, records: int) -> Deployment:
    """A deployment with so many records behind it that does not run."""
    deployment = Deployment(directory, 1)
    directory.mkdir()
    assert deployment.description
    deployment.close()
    place = _store_of(deployment)
    _fill(place, records)
    _followed(place)
    del deployment.description
    assert deployment.description  # and signs a checkpoint
    deployment.close()
    return deployment


def _followed(place: Path) -> None:
    """Reconciliation has come to the end, as a replica's would have all the while."""
    with closing(sqlite3.connect(place)) as connection, connection:
        [size] = connection.execute("SELECT tree_size FROM control").fetchone()
        state = msgspec.msgpack.encode(State(position=size, began=size))
        connection.execute("DELETE FROM reconciliation")
        connection.execute("INSERT INTO reconciliation VALUES (1, 1, x'', 0, ?, ?)", (size, state))


def _store_of(deployment: Deployment) -> Path:
    return Path(deployment.description["store"].removeprefix("sqlite://"))


def _fill(place: Path, records: int) -> None:
    store = SqliteStore(place)
    try:
        began = time.perf_counter()
        _through(Filler(START_MS, DAYS * DAY_MS, records).fill(store), "records")
        _tell("written_s", round(time.perf_counter() - began, 1))
        began = time.perf_counter()
        _through(summarise(store), "tiles summarised")
        took = time.perf_counter() - began
        _tell("summaries_s", round(took, 1))
        _tell("summary_us_a_record", round(took / records * 1e6, 1))
    finally:
        store.close()


def _checkpoint(place: Path) -> None:
    store = SqliteStore(place)
    try:
        size = store.control().tree_size
        root = TreeReader(store.hashes, size).root()
        note = sign_checkpoint(size, root, LOG, KEY.sign)
        store.save_checkpoint(Checkpoint(size, root, note, START_MS))
    finally:
        store.close()


def _sizes(place: Path, records: int) -> None:
    """Bytes a record by table, with what its agent told, hashes and summaries; and for each entry
    of the log, those of agents' batches too.
    """
    with closing(sqlite3.connect(place)) as connection:
        rows = connection.execute(
            "SELECT name, SUM(pgsize) FROM dbstat GROUP BY name HAVING SUM(pgsize) > ?", (records,)
        ).fetchall()
        size, entries = connection.execute(
            "SELECT SUM(leaf_count), TOTAL(LENGTH(entries)) FROM log_segments"
        ).fetchone()
    for name, used in sorted(rows, key=lambda row: -row[1]):
        _tell(f"bytes_a_record.{name}", round(used / records, 1))
    _tell("bytes_a_record.of_entries", round(entries / records, 1))
    _tell("bytes_a_record.all", round(place.stat().st_size / records, 1))
    _tell("bytes_an_entry.all", round(place.stat().st_size / size, 1))


def _questions(archive: Archive) -> None:
    """What a responder asks: seconds of the first time and of the second, events found, entries
    read.
    """
    middle = archive.size // 2
    signed = next(
        one for one in map(decode, archive.entries(middle, 1000)) if isinstance(one, Signed)
    )
    workload, at = signed.group.workload, signed.time_ms
    hour, day = (at - HOUR_MS // 2, at + HOUR_MS // 2), (at - DAY_MS // 2, at + DAY_MS // 2)
    questions = {
        "workload and hour": Selection(select({"workload": [workload]}), *hour),
        "workload and day": Selection(select({"workload": [workload]}), *day),
        "refused, key and hour": Selection(
            select({"key": [signed.group.key], "outcome": ["refused"]}), *hour
        ),
        "everything in a minute": Selection(since_ms=at, until_ms=at + 60_000),
        "an intent": Selection(select({"intent": [signed.intent_id]})),
        "a commitment": Selection(select({"commitment": [signed.commitment]})),
        "a signature": Selection(select({"signature": [signed.signature_hash]})),
        "a workload that is not there": Selection(select({"workload": ["spiffe://x/y"]})),
    }
    for name, selection in questions.items():
        first, *_ = _asked(archive, selection)
        again, cpu, found, looked = _asked(archive, selection)
        figures = {"first_s": first, "again_s": again, "cpu_s": cpu}
        _tell(f"query.{name}", figures | {"events": found, "entries_read": looked.read})


def _asked(archive: Archive, selection: Selection) -> tuple[float, float, int, Looked]:
    last = Looked(0, 0, 0)

    def tell(now: Looked) -> None:
        nonlocal last
        last = now

    began, cpu = time.perf_counter(), time.process_time()
    found = sum(1 for _ in find(archive, selection, tell=tell))
    took = round(time.perf_counter() - began, 3), round(time.process_time() - cpu, 3)
    return *took, found, last


def _proofs(archive: Archive) -> None:
    """Milliseconds of an inclusion proof under one checkpoint: medians of a thousand leaves, the
    first time (those are verified too) and once what is above their tiles has been read.
    """
    size = archive.size
    tree = TreeReader(archive.hashes, size)
    root = tree.root()
    chosen = random.Random(2).sample(range(size), 1000)
    for when in ("first", "warm"):
        times = []
        cpu = time.process_time()
        for index in chosen:
            began = time.perf_counter()
            proof = tree.inclusion(index)
            times.append(time.perf_counter() - began)
            if when == "first":
                (entry,) = archive.entries(index, 1)
                verify_inclusion(index, size, leaf_hash(entry), proof, root)
        spent = (time.process_time() - cpu) / len(chosen)
        figures = {"median": median(times) * 1000, "cpu": spent * 1000}
        _tell(f"inclusion_proof_ms.{when}", {name: round(ms, 3) for name, ms in figures.items()})


def _command(place: Path, log_key: str) -> None:
    """Whole commands, as processes: seconds and the most memory they took."""
    base = [sys.executable, "-m", "capsign_cli", "audit"]
    since = "2026-09-26T14:00:00Z"
    until = "2026-09-26T15:00:00Z"
    workload = "spiffe://cluster.example/ns/team-7/sa/service-107"
    commands = {
        "query, workload and hour": [
            "query",
            str(place),
            "--workload",
            workload,
            "--since",
            since,
            "--until",
            until,
        ],
        "query, read all": ["query", str(place), "--read-all", "--intent", "00" * 16],
        "verify": ["verify", str(place), "--log-key", log_key],
    }
    for name, arguments in commands.items():
        began = time.perf_counter()
        with subprocess.Popen([*base, *arguments, "-o", "json"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            lines = sum(1 for _ in process.stdout)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        _tell(
            f"command.{name}",
            {
                "s": round(time.perf_counter() - began, 2),
                "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
                "mib": round(usage.ru_maxrss / 1024, 1),
                "lines": lines,
                "exit": process.returncode,
            },
        )


def _sign(large: Deployment, scratch: Path, records: int, rounds: int) -> None:
    """p50 of one call at a time, in turns: with 10⁴ records behind it, and with all of them."""
    deployments = {10_000: _deployed(scratch / "small", 10_000), records: large}
    try:
        for deployment in deployments.values():
            del deployment.description
            assert deployment.socket
        seen: dict[int, list[float]] = {size: [] for size in deployments}
        for _ in range(rounds):
            for size, deployment in deployments.items():
                seen[size].append(_p50_us(deployment.socket))
        for size, times in seen.items():
            _tell(f"sign_p50_us.{size}", {"median": median(times), "rounds": times})
        _tell("sign_p50_ratio", round(median(seen[records]) / median(seen[10_000]), 3))
    finally:
        for deployment in deployments.values():
            deployment.close()


def _p50_us(socket: str) -> float:
    load = [sys.executable, "-m", "bench.load", "--threads", "1", "--no-coalesce"]
    done = subprocess.run(
        [*load, "--seconds", "5", socket], check=True, capture_output=True, text=True
    )
    return round(float(json.loads(done.stdout)["p50_us"]), 1)


def _through(steps: Iterable[int], what: str) -> None:
    shown: Callable[[str], object] = sys.stderr.write if sys.stderr.isatty() else lambda _: None
    for step in steps:
        shown(f"\r  {step} {what}   ")
    shown("\n")


def _tell(name: str, value: object) -> None:
    print(json.dumps({name: value}), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.evidence_scale", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--dir", help="Where there is room: 600 bytes a record.")
    parser.add_argument("--sign", type=int, default=0, metavar="ROUNDS")
    return parser


if __name__ == "__main__":
    main()
