"""Makes the picture of a timeline in docs/operations/export.md, of a made-up day, with Chromium.

Not part of `make docs`: pictures of two versions of a browser differ.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/operations/timeline.png"
MOST = 150_000
"""Most bytes of the picture."""

sys.path.insert(0, str(ROOT / "tests"))


def main() -> None:
    """Render the page, open it, and take a picture of what a laptop shows."""
    from capsign_cli.audit.timeline_page import render
    from support.browser import browsing
    from support.timelines import made_up

    with TemporaryDirectory() as folder:
        page = Path(folder) / "timeline.html"
        page.write_text(render(made_up(6_000, hostile=False)), encoding="utf-8")
        with browsing(Path(folder) / "profile") as browser:
            opened = browser.page(1440, 880).open(page.as_uri())
            opened.run("until(() => document.querySelector('#count').textContent)")
            opened.screenshot(PICTURE)
    size = PICTURE.stat().st_size
    if size > MOST:
        raise SystemExit(f"the picture has {size} bytes, and may have {MOST}")


if __name__ == "__main__":
    main()
