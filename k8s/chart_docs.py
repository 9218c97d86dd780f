"""The table of the chart's values in k8s/README.md, made from the comments in
k8s/chart/values.yaml.

`python k8s/chart_docs.py` writes it; with `--check` it says whether the file is what it would
write, and changes nothing.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
VALUES = HERE / "chart" / "values.yaml"
README = HERE / "README.md"
BEGIN, END = "<!-- values: made by k8s/chart_docs.py -->", "<!-- end of values -->"

_KEY = re.compile(r"( *)([A-Za-z][A-Za-z0-9]*):")
_COMMENT = re.compile(r" *# -- (.*)")


class DocsError(Exception):
    """A value without a comment, or a README without the markers. The text names it."""


def comments(text: str) -> dict[str, str]:
    """What the line above each key says, by the key's dotted path."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    said = ""
    for line in text.splitlines():
        if comment := _COMMENT.fullmatch(line):
            said = comment[1]
            continue
        if key := _KEY.match(line):
            path = [step for step in path if step[0] < len(key[1])] + [(len(key[1]), key[2])]
            if said:
                found[".".join(name for _, name in path)] = said
        said = ""
    return found


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Path, default and meaning of every value, in the file's order. Raises DocsError for one
    without a comment.
    """
    said = comments(text)
    yield from _rows("", yaml.safe_load(text), said)


def _rows(
    prefix: str, values: dict[str, Any], said: dict[str, str]
) -> Iterator[tuple[str, str, str]]:
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and any(other.startswith(f"{path}.") for other in said):
            yield from _rows(f"{path}.", value, said)
        elif path in said:
            yield path, json.dumps(value, ensure_ascii=False), said[path]
        else:
            raise DocsError(
                f"{VALUES.name}: {path} has no comment. Write `# -- what it is` above it."
            )


def table(text: str) -> str:
    """Markdown."""
    lines = ["| value | default | what |", "|---|---|---|"]
    lines += [
        f"| `{path}` | `{default}` | {what} |".replace("\n", " ")
        for path, default, what in rows(text)
    ]
    return "\n".join(lines) + "\n"


def written(readme: str, values: str) -> str:
    """The README with the table as it should be. Raises DocsError if the markers are not there."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise DocsError(
            f"{README.name} has no markers {BEGIN} and {END}. Put them where the table belongs."
        )
    return f"{head}{BEGIN}\n{table(values)}{END}{tail}"


def main(arguments: list[str]) -> int:
    readme = README.read_text(encoding="utf-8")
    try:
        wanted = written(readme, VALUES.read_text(encoding="utf-8"))
    except DocsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if arguments == ["--check"]:
        if wanted != readme:
            sys.stderr.write(
                "k8s/README.md is not what values.yaml says. Run `python k8s/chart_docs.py`.\n"
            )
        return int(wanted != readme)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
