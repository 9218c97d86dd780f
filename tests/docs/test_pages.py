"""The pages are followed as they are written, against what the README starts. Those about rollouts
wait the longest, and have a file of their own.
"""

from __future__ import annotations

import pytest
from support.pages import FIRST, ROLLOUTS, followed

pytestmark = pytest.mark.system


@pytest.mark.parametrize("page", [page for page in followed() if page not in {FIRST, *ROLLOUTS}])
def test_a_page_can_be_followed(terminal, page):
    reader, environ = terminal
    reader.follow(page, environ)
