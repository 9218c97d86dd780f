"""Checks a message against the bounds that its `.proto` states, before anything is allocated or
decided.

The rules are compiled once for each message type from the `bound` options; checking then touches
only the fields that are set and those that must be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from operator import attrgetter
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from capsign_wire.advice import Given
from capsign_wire.bound_values import (
    FORMATS,
    BoundError,
    Length,
    Number,
    malformed,
    too_large,
)
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import bounds_pb2, failures_pb2

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest gRPC request either side accepts, bytes."""

MARGIN_BYTES = 256 * 1024
"""How far above our bound gRPC takes a request, bytes, so that the refusal is a typed failure."""

ADAPTER_REQUEST_BYTES = 256 * 1024
"""Largest request that every adapter accepts, bytes: it may have to hold one for each call that it
serves before it has checked any. Agents split what they send accordingly.
"""

MAX_ANSWER_BYTES = 5 * MAX_MESSAGE_BYTES
"""Largest gRPC answer, bytes: many times its request where a thousand ML-DSA signatures have an
attestation each.
"""

MAX_BATCH_ITEMS = 1024
"""Most items in one signing batch, over all its groups."""

MAX_NUMBER = 2**63 - 1
"""The largest value of a 64-bit field that states no bound: what a store can hold. A request with a
version of 2**64 - 1 ended as INTERNAL, in SQLite's driver.
"""

MANY = 8
"""Number of items from which they are checked field by field, see `_columns`."""

SPARSE = 8
"""Number of fields from which it is worth to find out which of them any item has set."""

_UNSIGNED_64 = frozenset({FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64})

_SIGNED = frozenset({"message", "input"})
"""Fields that hold what is signed."""

_SIZED = frozenset({FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING})

Check = Callable[[Any], None]
Column = Callable[[Sequence[Any]], None]


def taken_bytes(most: int) -> int:
    """Returns the largest request that gRPC accepts where our bound is `most`, bytes: twice that,
    or `MARGIN_BYTES` more. gRPC refuses larger ones itself, unread and without a typed failure.
    """
    return most + min(most, MARGIN_BYTES)


class Unparsed:
    """Stands for a request that could not be parsed, or a large one that broke a bound; see
    `lenient`.
    """

    def __init__(self, failure: failures_pb2.Failure, number: int = 0) -> None:
        self._failure = failure
        self.number = number
        """Its `call_id` or `batch_id`, where it has one that could be read."""

    def failure(self) -> FailureError:
        """Returns why, as a new exception each time: a traceback grows with each raise."""
        return FailureError.from_item(self._failure)


def check(message: Message | Unparsed) -> None:
    """Raise FailureError INPUT_MALFORMED or INPUT_TOO_LARGE, with the path of the field, if a bound
    is broken.
    """
    if isinstance(message, Unparsed):
        raise message.failure()
    try:
        _checker(message.DESCRIPTOR)(message)
    except BoundError as broken:
        raise broken.failure() from None


def parse(
    kind: type[Message], data: bytes, before_check: Callable[[Any], None] = lambda _: None
) -> Any:
    """Parse and check bytes that came inside another message. Parsing is cheap compared with
    checking each field, so `before_check` gets the parsed message first and may charge for it; what
    it raises is passed on. Raises FailureError INPUT_MALFORMED or INPUT_TOO_LARGE.
    """
    try:
        message = kind.FromString(data)
    except DecodeError:
        text = f"This is not a {kind.DESCRIPTOR.name}."
        raise FailureError(failures_pb2.REASON_INPUT_MALFORMED, text, given=Given.REQUEST) from None
    before_check(message)
    check(message)
    return message


_checkers: dict[str, Check] = {}


def _checker(descriptor: Any) -> Check:
    found = _checkers.get(descriptor.full_name)
    if found is None:
        found = _checkers[descriptor.full_name] = _compile(descriptor)
    return found


def _compile(descriptor: Any) -> Check:
    sized: list[tuple[str, Length, int, int, Any, bool]] = []
    """Fields that always have a value, and a length: name, and what that may be."""
    numbers: list[tuple[str, Number, int]] = []
    """Those that are numbers, and the largest."""
    enums: list[tuple[str, Check, frozenset[int], bool]] = []
    """Those of them that are enumerations: the known values, and whether 0 is too little."""
    nested: list[tuple[str, Check, bool]] = []
    """Messages, and whether they must be there."""
    rules: list[Check] = []
    """What to hold the message against for the sake of each other field."""
    choices: dict[str, dict[str, Check]] = {}
    """Fields of which at most one is there, or that may be absent."""
    for field in descriptor.fields:
        bound = field.GetOptions().Extensions[bounds_pb2.bound]
        if field.is_repeated:
            rules.append(_repeated_rule(field, bound))
            continue
        single = _value_rule(field, bound)
        if single is not None and field.message_type is not None:
            nested.append((field.name, single, bound.required))
        elif single is not None and field.containing_oneof is not None:
            choices.setdefault(field.containing_oneof.name, {})[field.name] = single
        elif isinstance(single, Length):
            sized.append((field.name, single, *astuple(single)[:4]))
        elif single is not None and field.enum_type is not None:
            known = frozenset(field.enum_type.values_by_number)
            enums.append((field.name, single, known, bound.required))
        elif isinstance(single, Number):
            numbers.append((field.name, single, single.most))

    rules += [_choice_rule(*choice) for choice in choices.items()]

    def run(message: Any) -> None:
        name = ""
        try:
            # a call for each field would be most of the time, and nearly all are good
            for name, length, least, most, matches, may_be_empty in sized:
                value = getattr(message, name)
                size = len(value)
                if size == 0 and may_be_empty:
                    continue
                if not least <= size <= most or (matches is not None and not matches(value)):
                    length(value)
            for name, single, known, required in enums:
                value = getattr(message, name)
                if value not in known or (required and not value):
                    single(value)
            for name, number, largest in numbers:
                value = getattr(message, name)
                if value > largest:
                    number(value)
            for name, single, required in nested:
                if message.HasField(name):
                    single(getattr(message, name))
                elif required:
                    raise malformed("The field {path} is missing.")
        except BoundError as broken:
            raise broken.within(name) from None
        for rule in rules:
            rule(message)

    return run


def _choice_rule(oneof: str, singles: Mapping[str, Check]) -> Check:
    """Of these fields the one that is there."""

    def rule(message: Any) -> None:
        name = message.WhichOneof(oneof)
        if name not in singles:
            return
        try:
            singles[name](getattr(message, name))
        except BoundError as broken:
            raise broken.within(name) from None

    return rule


def _repeated_rule(field: FieldDescriptor, bound: bounds_pb2.Bound) -> Check:
    name, least, most = field.name, bound.min_items, bound.max_items
    if not most:
        raise TypeError(f"{field.full_name} is repeated and states no max_items")
    single = _value_rule(field, bound)
    columns = _columns(field.message_type) if field.message_type is not None else None

    def rule(message: Any) -> None:
        values = getattr(message, name)
        if len(values) > most:
            text = f"The field {{path}} has {len(values)} items; at most {most} are taken."
            raise too_large(text, Given.LIST).within(name)
        if len(values) < least:
            text = f"The field {{path}} needs at least {least} item."
            raise malformed(text, Given.LIST).within(name)
        if columns is not None and len(values) >= MANY and columns(values):
            return
        if single is not None:
            checked = 0
            try:
                for value in values:
                    single(value)
                    checked += 1
            except BoundError as broken:
                raise broken.within(f"[{checked}]").within(name) from None

    return rule


def _columns(descriptor: Any) -> Callable[[Sequence[Any]], bool] | None:
    """Returns a function that checks many messages field by field: of a number the largest, of
    bytes each length, of anything else each distinct value. That is a tenth of the work for similar
    records. Of kinds with many fields, those that none has set are not read. None for messages with
    other than plain fields.
    """
    rules: dict[str, tuple[Callable[[Any], Any], Column]] = {}
    needed: set[str] = set()
    """Fields that must be set: their default breaks their bound."""
    for field in descriptor.fields:
        bound = field.GetOptions().Extensions[bounds_pb2.bound]
        if field.is_repeated or field.message_type is not None or field.containing_oneof:
            return None
        single = _value_rule(field, bound)
        if single is not None:
            rules[field.name] = attrgetter(field.name), _column_rule(field, single)
            if _breaks(single, field.default_value):
                needed.add(field.name)

    def good(values: Sequence[Any]) -> bool:
        messages = [*values]  # each look into the field makes them anew
        names = _set_in(messages) & rules.keys() if len(rules) >= SPARSE else rules.keys()
        if not needed <= names:
            return False
        try:
            for name in names:
                value_of, rule = rules[name]
                rule([*map(value_of, messages)])
        except BoundError:
            return False  # which of them, is told by looking at them one by one
        return True

    return good


def _set_in(messages: Sequence[Any]) -> set[str]:
    """The fields that any of these messages of one kind has set. Serialised one after the other
    they are one message that has them all.
    """
    together = b"".join([one.SerializeToString() for one in messages])
    return {field.name for field, _ in type(messages[0]).FromString(together).ListFields()}


def _breaks(single: Check, value: Any) -> bool:
    try:
        single(value)
    except BoundError:
        return True
    return False


def _column_rule(field: FieldDescriptor, single: Check) -> Column:
    def largest(column: Sequence[Any]) -> None:
        single(max(column))

    def lengths(column: Sequence[Any]) -> None:
        for value in dict(zip(map(len, column), column, strict=True)).values():
            single(value)

    def distinct(column: Sequence[Any]) -> None:
        for value in {*column}:
            single(value)

    if field.type == FieldDescriptor.TYPE_BYTES:
        return lengths
    return distinct if field.enum_type is not None or field.type in _SIZED else largest


def _value_rule(field: FieldDescriptor, bound: bounds_pb2.Bound) -> Check | None:
    if field.message_type is not None:
        return _checker(field.message_type)  # no message of ours contains itself
    if field.enum_type is not None:
        return _enum_rule(frozenset(field.enum_type.values_by_number), bound.required)
    if field.type in _SIZED:
        return _length_rule(field, bound)
    if bound.max_value or field.type in _UNSIGNED_64:
        return Number(bound.max_value or MAX_NUMBER)
    return None


def _enum_rule(known: frozenset[int], required: bool) -> Check:
    def rule(value: int) -> None:
        if value not in known:
            raise malformed("The field {path} has a value that this version does not know.")
        if required and value == 0:
            raise malformed("The field {path} is missing.")

    return rule


def _length_rule(field: FieldDescriptor, bound: bounds_pb2.Bound) -> Check:
    least, most, optional = bound.min_len, bound.max_len, bound.optional_value
    if not most:
        raise TypeError(f"{field.full_name} states no max_len")
    pattern, wording = FORMATS[bound.format]
    matches = pattern.fullmatch if field.type == FieldDescriptor.TYPE_STRING else None
    given = Given.MESSAGE if field.name in _SIGNED else Given.TEXT
    return Length(least, most, matches, optional or least == 0, wording, given)
