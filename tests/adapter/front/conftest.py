from __future__ import annotations

import pytest
from support.adapter_rig import AdapterRig
from support.replica import RunningReplica


@pytest.fixture
def replica(tmp_path):
    running = RunningReplica(tmp_path, AdapterRig(tmp_path / "store"))
    yield running
    running.stop()
