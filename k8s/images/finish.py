"""Build stage: the last step on a folder of modules. Drops what is never used and compiles the
rest.

The .pyc files are unchecked: the root is read-only, so nobody asks whether a source is newer, and
file times do not matter.
"""

import compileall
import shutil
import sys
from pathlib import Path
from py_compile import PycInvalidationMode


def main(folder: Path) -> int:
    shutil.rmtree(
        folder / "bin", ignore_errors=True
    )  # console scripts of dependencies: ours are in /opt/capsign/bin
    return not compileall.compile_dir(
        folder, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
