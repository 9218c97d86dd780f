"""The listener of people: what bounds a message there."""

from __future__ import annotations

import pytest
from capsign_adapter.front import admin_server
from capsign_adapter.front.admin_quota import sort_of
from capsign_adapter.front.tls import server_options


def test_a_message_for_people_is_small():
    """The longest request of a person names one target: gRPC ends a call with a megabyte before it
    has read it.
    """
    options = dict(server_options(16, admin_server.MESSAGE_BYTES))
    assert admin_server.MESSAGE_BYTES == 65_536
    assert options["grpc.max_receive_message_length"] == 2 * admin_server.MESSAGE_BYTES


@pytest.mark.parametrize(
    ("method", "sort"),
    [
        ("Revoke", "revoke"),
        ("ListKeys", "look"),
        ("GetEntries", "look"),
        ("Approve", "change"),
        ("BreakGlass", "change"),
    ],
)
def test_methods_that_change_have_places_of_their_own(method, sort):
    """Whoever reads the log, however often, keeps nobody from approving, nor an approver anybody
    from revoking.
    """
    assert sort_of(method)[0] == sort
