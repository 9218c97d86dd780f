"""The pages about rollouts are followed as they are written (`test_pages` has all others)."""

from __future__ import annotations

import pytest
from support.pages import ROLLOUTS, followed

pytestmark = pytest.mark.system


@pytest.mark.parametrize("page", ROLLOUTS)
def test_a_page_can_be_followed(terminal, page):
    reader, environ = terminal
    assert page in followed()
    reader.follow(page, environ)
