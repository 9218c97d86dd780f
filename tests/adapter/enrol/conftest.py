from __future__ import annotations

import pytest
from capsign_adapter.enrol.api import Api
from capsign_adapter.enrol.cluster import Cluster
from support.enrolment_rig import EnrolmentRig
from support.fake_cluster import FakeCluster


@pytest.fixture
def fake(tmp_path):
    cluster = FakeCluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def api(fake):
    api = Api(fake.url, fake.token_file, fake.ca_file, seconds=10.0)
    yield api
    api.close()


@pytest.fixture
def cluster(api):
    return Cluster(api)


@pytest.fixture
def door(tmp_path, rig):
    door = EnrolmentRig(tmp_path, rig)
    yield door
    door.close()
