"""The chart's export (`export.enabled`): it ran beside everything that the tests before did to the
release, and its receiver has every event of the log.
"""

from __future__ import annotations

import json
import subprocess

from capsign_evidence.drift_leaf import DriftKind
from system.cluster.auditor import CAPSIGN
from system.cluster.fleet import SYSTEM
from system.cluster.kit.cluster import until


def test_every_event_of_the_log_has_reached_the_receiver(fleet, tmp_path):
    """What it read over HTTPS, whichever adapter served, whatever their authority, is what a copy
    of the store has.
    """
    events = tmp_path / "events.jsonl"
    with fleet.copy() as copy:
        command = [CAPSIGN, "audit", "export", copy, "--format=ocsf-jsonl", f"--to={events}"]
        done = subprocess.run(
            [*command, f"--cursor={tmp_path}/cursor"], capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr
    logged = {json.loads(line)["metadata"]["uid"] for line in events.read_text().splitlines()}
    assert len(logged) > 4
    until(lambda: logged <= fleet.collector.came().keys(), "every event at the receiver", 120)
    # what came again was handed over and not noted: a batch at most for each end of the process
    (pod,) = fleet.kubectl.get("pod", "", SYSTEM, **{"app.kubernetes.io/component": "export"})[
        "items"
    ]
    (container,) = pod["status"]["containerStatuses"]
    assert container["ready"]
    assert container["restartCount"] == 0, "it waits for what is not there yet, and for adapters"
    size = fleet.kubectl(
        "exec",
        "deployment/capsign-export",
        f"--namespace={SYSTEM}",
        "--",
        "/usr/bin/python3",
        "-c",
        "import os; print(os.path.getsize('/var/lib/capsign-export/set-aside.jsonl'))",
    )
    assert int(size) == 0, "nothing was too large"


def test_what_the_adapter_negotiates_is_what_the_policy_demands(fleet):
    """Address for enrolment included, which only a cluster has: it spoke TLS 1.2, and the adapter's
    difference from its policy never ended.
    """
    with fleet.store() as store:
        drift = store.drift()
    assert drift.reports, "a replica has looked"
    assert not [row for row in drift.rows if row.difference.kind is DriftKind.TLS]
