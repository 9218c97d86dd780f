"""Settings of a process: one TOML file, then the environment, into one frozen typed struct.

`docs/decisions/0001-what-lives-in-capsign-wire.md` says why this is shared. Every error names the
key and the fix. Needs msgspec, which the extras `agent`, `adapter` and `injector` bring;
applications never import this module.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import stat
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from capsign_wire.file_access import ACL, strangers

MAX_FILE_BYTES = 256 * 1024
"""Largest settings file, bytes."""

MAX_SECRET_BYTES = 64 * 1024
"""Largest secret file, bytes."""

T = TypeVar("T")

_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`")
# Kubernetes puts the address of every Service into the environment of every pod: a Service called
# `capsign-agent` gives names that begin with our prefix. They are not meant for us, and a pod must
# not fail because of them.
_SERVICE_LINK = re.compile(
    r".*_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|.*_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?"
)


class SettingsError(Exception):
    """The settings cannot be used. `key` is dotted, or empty where no single key is at fault; the
    text names the fix.
    """

    def __init__(self, sentence: str, *, key: str = "") -> None:
        self.key = key
        super().__init__(sentence)


def load(path: Path | None, kind: type[T], env_prefix: str, environ: Mapping[str, str]) -> T:
    """The settings in `path`, overridden by `environ`, as a checked `kind`.

    With no path, the variable `<env_prefix>_CONFIG` may hold the text of the file itself: a pod
    needs no file for it then. With neither there are defaults only.

    `kind` is a msgspec Struct. The key `port` of the section `[health]` is overridden by
    `<env_prefix>_HEALTH_PORT`; a list by items with commas between them. Variables with the prefix
    that name no key are refused, except those that Kubernetes makes for Services. Raises
    SettingsError.
    """
    import msgspec

    source, tree = _tree(path, f"{env_prefix}_CONFIG", environ)
    shape = msgspec.inspect.type_info(kind)
    _refuse_unknown(tree, shape, "", source)
    for name, key, value in _overrides(kind, env_prefix, environ):
        section = tree
        for part in key[:-1]:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise SettingsError(
                    f"{source}: `{part}` must be a section, so that {name} can override a "
                    f"key in it.",
                    key=part,
                )
        section[key[-1]] = value
    return _convert(tree, kind, source, env_prefix)


def check(tree: Any, kind: type[T], source: str, *, at: str = "") -> T:
    """A document that was already parsed, from `source` (for messages), as a checked `kind`; `at`
    is the key of a part of one. No I/O. Raises SettingsError.
    """
    import msgspec

    _refuse_unknown(tree, msgspec.inspect.type_info(kind), at, source)
    return _convert(tree, kind, source, "", at)


def _convert(tree: Any, kind: type[T], source: str, env_prefix: str, at: str = "") -> T:
    import msgspec

    try:
        return msgspec.convert(tree, kind, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise _explained(error, source, env_prefix, at) from None


def read_secret(path: Path) -> bytes:
    """The bytes of a secret file: regular, at most 64 KiB, ours or root's, nothing for group or
    others.

    A symbolic link is followed only within the file's own directory, as Kubernetes lays out a
    mounted Secret (`pin` is a link to `..data/pin`). There, for a process that is not root, a file
    of root's may be readable by a group of ours, which is what `fsGroup` makes, or by our user
    through an access control list, which is what systemd's LoadCredential makes. Raises
    SettingsError that names the file and the fix, and never quotes what is in it.
    """
    home = path.parent.resolve()
    real = path.resolve()
    if not real.is_relative_to(home):
        raise SettingsError(
            f"The secret file {path} is a link out of its directory. Name the file itself."
        )
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SettingsError(
            f"The secret file {path} cannot be opened ({_why(error)}). It must be a regular file."
        ) from None
    try:
        _refuse_exposed(path, os.fstat(descriptor), _acl(descriptor))
        data = b"".join(iter(lambda: os.read(descriptor, MAX_SECRET_BYTES), b""))
    finally:
        os.close(descriptor)
    if not data:
        raise SettingsError(f"The secret file {path} is empty. Write the secret into it.")
    return data


def _acl(descriptor: int) -> bytes:
    """The access control list, empty if the file has none or its file system knows none."""
    try:
        return os.getxattr(descriptor, ACL)
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return b""
        raise


def _refuse_exposed(path: Path, state: os.stat_result, acl: bytes) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise SettingsError(
            f"The secret file {path} is not a regular file. Put the secret into a file of its own."
        )
    if state.st_uid not in {os.geteuid(), 0}:
        fix = f"Run `chown {os.geteuid()} {quote(str(path))}`."
        raise SettingsError(f"The secret file {path} belongs to user {state.st_uid}. {fix}")
    mounted = state.st_uid == 0 and os.geteuid() != 0
    ours = frozenset({os.getegid(), *os.getgroups()}) if mounted else frozenset()
    open_to = list(
        strangers(state.st_mode, acl, uid=os.geteuid(), allowed_groups=ours, gid=state.st_gid)
    )
    if open_to:
        told = (
            f"The secret file {path} has mode {stat.S_IMODE(state.st_mode):04o}: others can read it"
        )
        if not acl:
            raise SettingsError(f"{told}. Run `chmod 600 {quote(str(path))}`.")
        raise SettingsError(
            f"{told} ({', '.join(open_to)}, by its access control list). Run `setfacl -b "
            f"{quote(str(path))}`, then chmod 600."
        )
    if state.st_size > MAX_SECRET_BYTES:
        raise SettingsError(
            f"The secret file {path} is larger than {MAX_SECRET_BYTES} bytes. It must "
            f"hold one secret only."
        )


def _tree(
    path: Path | None, variable: str, environ: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    """What the settings are called in a sentence, and the settings."""
    if path is not None:
        return str(path), _parsed(_read(path), f"The settings file {path}")
    if variable in environ:
        data = environ[variable].encode(errors="surrogateescape")
        return variable, _parsed(data, f"The text in {variable}")
    return "the environment", {}


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"The settings file {path} cannot be read ({_why(error)}). Check the path "
            f"after --config."
        ) from None


def _parsed(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(f"{what} is larger than {MAX_FILE_BYTES} bytes. Is it the right one?")
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise SettingsError(f"{what} is not UTF-8. Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{what} is not TOML: {error}. Correct that line.") from None
    except RecursionError:
        raise SettingsError(f"{what} is nested too deeply. Is it the right one?") from None


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise TypeError(f"a setting cannot be of type {kind}")


def _refuse_unknown(value: Any, shape: Any, where: str, source: str) -> None:
    """Walks the file next to its shape, so that a misspelt key is refused with the name that was
    probably meant.
    """
    import msgspec.inspect as shapes

    if isinstance(shape, shapes.StructType) and isinstance(value, dict):
        known = {field.encode_name: field.type for field in shape.fields}
        for name, inner in value.items():
            key = f"{where}.{name}" if where else name
            if name not in known:
                raise SettingsError(
                    f"{source}: the key `{key}` is not known.{_meant(name, list(known))}", key=key
                )
            _refuse_unknown(inner, known[name], key, source)
    elif isinstance(shape, shapes.UnionType):
        structs = [member for member in shape.types if isinstance(member, shapes.StructType)]
        if len(structs) == 1:
            _refuse_unknown(value, structs[0], where, source)
        for member in shape.types:
            if not isinstance(member, shapes.StructType):
                _refuse_unknown(value, member, where, source)
    elif isinstance(shape, shapes.ListType | shapes.VarTupleType) and isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_unknown(inner, shape.item_type, f"{where}[{index}]", source)
    elif isinstance(shape, shapes.DictType) and isinstance(value, dict):
        for name, inner in value.items():
            _refuse_unknown(inner, shape.value_type, f"{where}.{name}", source)


def _meant(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean `{close[0]}`?" if close else f" Known here: {', '.join(sorted(known))}."


def _leaves(kind: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key that a variable can override, with its type: scalars and lists of scalars, in
    nested sections.
    """
    import msgspec

    for field in msgspec.structs.fields(kind):
        here = (*path, field.encode_name)
        section = _section(field.type)
        if section is not None:
            yield from _leaves(section, here)
        else:
            yield here, field.type


def _section(kind: Any) -> Any:
    """The struct that a field of type `Struct` or `Struct | None` is a section of; otherwise
    None.
    """
    import msgspec

    bare = _bare(kind)
    candidates = (
        typing.get_args(bare)
        if typing.get_origin(bare) in {typing.Union, types.UnionType}
        else (bare,)
    )
    structs = [
        one for one in candidates if isinstance(one, type) and issubclass(one, msgspec.Struct)
    ]
    return structs[0] if len(structs) == 1 else None


def _bare(kind: Any) -> Any:
    """A type without its Annotated constraints."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def _overrides(
    kind: Any, prefix: str, environ: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    import msgspec

    known = {
        "_".join((prefix, *path)).upper().replace("-", "_"): (path, of)
        for path, of in _leaves(kind, ())
    }
    for name, text in sorted(environ.items()):
        if not name.startswith(f"{prefix}_") or name == f"{prefix}_CONFIG":
            continue
        if name not in known:
            if _SERVICE_LINK.fullmatch(name):
                continue
            raise SettingsError(
                f"The environment variable {name} overrides nothing.{_meant(name, list(known))}",
                key=name,
            )
        path, of = known[name]
        value: Any = text
        if typing.get_origin(_bare(of)) in {list, tuple, set, frozenset}:
            value = [part.strip() for part in text.split(",") if part.strip()]
        try:
            typed = msgspec.convert(value, of, strict=False, dec_hook=_decode)
        except msgspec.ValidationError as error:
            what = _AT.match(str(error))
            reason = what["what"] if what else "it has the wrong form"
            raise SettingsError(
                f"The environment variable {name} does not fit: {reason}. Set it anew.",
                key=".".join(path),
            ) from None
        yield name, path, msgspec.to_builtins(typed, enc_hook=str)


def _explained(error: Exception, source: str, prefix: str, at: str) -> SettingsError:
    """msgspec's error as a sentence that names the key, the file and the variable that sets it."""
    found = _AT.match(str(error))
    what, path = (found["what"], at + (found["path"] or "")) if found else (str(error), at)
    path = path.lstrip(".")
    missing = _MISSING.match(what)
    if missing:
        key = f"{path}.{missing['name']}" if path else missing["name"]
        what = "it is missing"
    else:
        key, what = path, what[:1].lower() + what[1:]
    fix = f" Correct it in {source}"
    if prefix and key and "[" not in key:
        fix += f" or set {prefix}_{key.upper().replace('.', '_').replace('-', '_')}"
    return SettingsError(f"{source}: the key `{key or '(top level)'}`: {what}.{fix}.", key=key)


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
