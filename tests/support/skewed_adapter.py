"""The adapter, except that its clock is off by as many milliseconds as the file CAPSIGN_TEST_CLOCK
says at the moment.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from capsign_adapter import __main__

if __name__ == "__main__":
    told, true = Path(os.environ["CAPSIGN_TEST_CLOCK"]), time.time_ns
    time.time_ns = lambda: true() + int(told.read_text() or 0) * 1_000_000
    __main__.main()
