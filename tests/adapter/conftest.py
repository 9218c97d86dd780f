from __future__ import annotations

import pytest
from support.adapter_rig import AdapterRig


@pytest.fixture
def rig(tmp_path):
    rig = AdapterRig(tmp_path / "store")
    yield rig
    rig.close()
