"""Writes configuration.md from the settings structs of agent and adapter: names, types, defaults
and what their docstrings say.

`make docs` runs it; a test says when it should be run.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from capsign_adapter import config as adapter
from capsign_agent import config as agent

TARGET = Path(__file__).with_name("configuration.md")
HEAD = """# Configuration

Agent and adapter each read one TOML file (`--config`), then variables. Without `--config` the agent
takes the text from the variable `CAPSIGN_AGENT_CONFIG`. Made from the code by `make docs`; do not
edit.

* A key that is not known is refused, with the name that was probably meant. So is a variable with
  our prefix that overrides nothing.
* `--check-config` tries everything that a start would and changes nothing: it says what is wrong
  and ends with 2, or with 0. It takes addresses and locks too, so beside the running process it
  ends with 2. `capsign-adapter --check-documents` reads settings and policy only, for a machine
  that has neither token nor store.
* The variable of `port` in `[health]` is the prefix and `_HEALTH_PORT`. A list has commas between
  its items. Keys of `[[…]]` tables have no variable.
* Secrets are in files: regular, at most 64 KiB, readable by their owner only (`chmod 600`). A link
  is followed within its own directory, so a mounted Kubernetes Secret works; there a file of root's
  may be readable by the group that `fsGroup` names. No secret is ever in a variable or on a command
  line.
* Telemetry is configured by the standard variables: [telemetry.md](telemetry.md).
"""


def texts(kind: type) -> dict[str, str]:
    """The docstring after each field of a struct."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            said = after.value if isinstance(after, ast.Expr) else None
            text = said.value if isinstance(said, ast.Constant) else ""
            found[field.target.id] = " ".join(str(text).split())
    return found


def describe(kind: Any) -> str:
    """A type as a person writes it in TOML."""
    bare = msgspec.inspect.type_info(kind)
    names = {
        "StrType": "text",
        "IntType": "whole number",
        "FloatType": "number",
        "BoolType": "true or false",
        "CustomType": "path",
        "ListType": "list",
        "VarTupleType": "list",
    }
    bare = present(bare)
    text = names[type(bare).__name__]
    least, most = getattr(bare, "ge", None), getattr(bare, "le", None)
    return f"{text}, {least} to {most}" if least is not None and most is not None else text


def present(shape: Any) -> Any:
    """What a key holds where it is given: `X` of `X | None`."""
    if isinstance(shape, msgspec.inspect.UnionType):
        return next(one for one in shape.types if not isinstance(one, msgspec.inspect.NoneType))
    return shape


def page(kind: type, path: str) -> list[str]:
    """A table of a struct's keys, then one for each section in it."""
    said, table, sections = texts(kind), [], []
    for field in msgspec.structs.fields(kind):
        shape = msgspec.inspect.type_info(field.type)
        many = isinstance(shape, msgspec.inspect.ListType | msgspec.inspect.VarTupleType)
        item = present(shape.item_type if many else shape)
        if isinstance(item, msgspec.inspect.StructType):
            name = f"{path}.{field.name}" if path else field.name
            sections += [
                f"### `[[{name}]]`" if many else f"### `[{name}]`",
                "",
                *page(item.cls, name),
            ]
        else:
            table.append(
                f"| `{field.name}` | {describe(field.type)} | {default_of(field)} | "
                f"{said[field.name]} |"
            )
    lines = [] if kind.__name__ == "Config" else [" ".join((kind.__doc__ or "").split()), ""]
    if table:
        lines += ["| key | what | default | |", "|---|---|---|---|", *table, ""]
    return lines + sections


def default_of(field: Any) -> str:
    """What holds where the key is left out."""
    if field.default is msgspec.NODEFAULT:
        return "must be given" if field.default_factory is msgspec.NODEFAULT else "none"
    return "none" if field.default in (None, "", ()) else f"`{field.default}`"


def document() -> str:
    """The whole page."""
    parts = [HEAD]
    of: tuple[tuple[str, ModuleType, str], ...] = (
        ("Agent", agent, "CAPSIGN_AGENT"),
        ("Adapter", adapter, "CAPSIGN_ADAPTER"),
    )
    for title, module, prefix in of:
        parts += [f"## {title}", "", f"Variables: `{prefix}_…`.", "", *page(module.Config, "")]
    return "\n".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    TARGET.write_text(document())
