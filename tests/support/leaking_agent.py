"""The agent, except that it was given keys and keeps them: what the memory scan of I1 must see.

CAPSIGN_TEST_LEAK names a file with one key in base64 a line. Everything else is the real program.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from capsign_agent import __main__

if __name__ == "__main__":
    kept = Path(os.environ["CAPSIGN_TEST_LEAK"]).read_text().splitlines()
    sys.exit(__main__.main())
