"""Compares two policy documents, and classifies each change as same, stronger, weaker or broader.
The rule for every field is in the table of `policy_strength.py`.

Documents are compared by meaning: order, comments, spelling of a duration and a default that is
written out change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from capsign_adapter.decide import durations


class Strength(StrEnum):
    """Whether a change makes the policy allow less or more than before."""

    SAME = "same"
    """Nothing that was refused is allowed now, and nothing the other way round."""
    STRONGER = "stronger"
    """Less is allowed, or more is demanded."""
    WEAKER = "weaker"
    """Less is demanded: a longer life, a lower floor, a shorter wait, fewer who watch."""
    BROADER = "broader"
    """More is allowed: another subject, algorithm, key, context, or a higher rate."""

    @property
    def weakens(self) -> bool:
        """Whether the change needs a second person's approval."""
        return self in {Strength.WEAKER, Strength.BROADER}


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `subject` is what it is about ("grant orders-jwt"), `words` say what happens to
    it.
    """

    subject: str
    strength: Strength
    words: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.words}"


def weakens(changes: Sequence[Change]) -> bool:
    """Returns whether one of the changes needs a second person's approval."""
    return any(change.strength.weakens for change in changes)


class Rule(Protocol):
    """How one field is compared."""

    def changes(
        self, subject: str, old: Any, new: Any, table: Mapping[type, Mapping[str, Rule]]
    ) -> Iterator[Change]:
        """Returns the changes from `old` to `new`; none if they mean the same."""


def compare(
    subject: str, old: Any, new: Any, table: Mapping[type, Mapping[str, Rule]]
) -> Iterator[Change]:
    """Returns the changes between two parts of one type. Raises KeyError for a field without a
    rule: it must not pass as unchanged.
    """
    rules = table[type(new)]
    for name in new.__struct_fields__:
        yield from rules[name].changes(subject, getattr(old, name), getattr(new, name), table)


class Name:
    """The field that says which part it is; parts of another name are other parts."""

    def changes(self, subject: str, old: Any, new: Any, table: Any) -> Iterator[Change]:
        return iter(())


@dataclass(frozen=True)
class Amount:
    """A number or a duration. `more` and `less` are what it is to raise and to lower it; `of` makes
    a number of what is written; `none` is what no value means, and `without` its words; `zero` are
    the words of a duration of 0, where that says more than how long something takes.
    """

    what: str
    more: Strength
    less: Strength
    of: Callable[[Any], float] = float
    none: float = 0
    without: str = "none"
    zero: str = ""

    def changes(self, subject: str, old: Any, new: Any, table: Any) -> Iterator[Change]:
        before, after = self._number(old), self._number(new)
        if before != after:
            strength = self.more if after > before else self.less
            words = f"{self.what} from {self._text(old)} to {self._text(new)}"
            yield Change(subject, strength, words)

    def _number(self, value: Any) -> float:
        return self.none if value is None else self.of(value)

    def _text(self, value: Any) -> str:
        if value is None:
            return self.without
        return self.zero if self.zero and not durations.to_millis(value) else str(value)


@dataclass(frozen=True)
class Names:
    """A set of names: each that is added, and each that is taken out."""

    what: str
    added: Strength = Strength.BROADER
    removed: Strength = Strength.STRONGER

    def changes(self, subject: str, old: Any, new: Any, table: Any) -> Iterator[Change]:
        for name in sorted(set(new) - set(old)):
            yield Change(subject, self.added, f"{self.what} gain {name}")
        for name in sorted(set(old) - set(new)):
            yield Change(subject, self.removed, f"{self.what} lose {name}")


@dataclass(frozen=True)
class Choice:
    """One of a few words. `between` says what it is to go from one to the other, `told` how that
    reads.
    """

    what: str
    between: Callable[[Any, Any], Strength]
    told: str = "{what} from {old} to {new}"

    def changes(self, subject: str, old: Any, new: Any, table: Any) -> Iterator[Change]:
        if old != new:
            words = self.told.format(what=self.what, old=old, new=new)
            yield Change(subject, self.between(old, new), words)


def ranked(*weakest_first: Any) -> Callable[[Any, Any], Strength]:
    """Returns the `between` of a `Choice` whose words are in an order, weakest first."""
    places = {word: place for place, word in enumerate(weakest_first)}

    def between(old: Any, new: Any) -> Strength:
        return Strength.STRONGER if places[new] > places[old] else Strength.WEAKER

    return between


def always(strength: Strength) -> Callable[[Any, Any], Strength]:
    """Returns the `between` of a `Choice` of which every change has this strength."""
    return lambda _, __: strength


@dataclass(frozen=True)
class Part:
    """One part inside another, which may be absent. `called` is its own name, if it has one."""

    called: str = ""
    added: tuple[Strength, str] = (Strength.STRONGER, "")
    removed: tuple[Strength, str] = (Strength.WEAKER, "")

    def changes(
        self, subject: str, old: Any, new: Any, table: Mapping[type, Mapping[str, Rule]]
    ) -> Iterator[Change]:
        if old is None and new is not None:
            yield Change(subject, *self.added)
        elif new is None and old is not None:
            yield Change(subject, *self.removed)
        elif new is not None:
            yield from compare(self.called or subject, old, new, table)


@dataclass(frozen=True)
class Parts:
    """Many parts of one type. `name` says which is which, `called` how it is called, `tell` what it
    is for who has not seen it, `merge` joins those of one name.
    """

    name: Callable[[Any], Any]
    called: Callable[[str, Any], str]
    tell: Callable[[Any], str]
    added: Strength = Strength.BROADER
    removed: Callable[[Any], Strength] = lambda _: Strength.STRONGER
    merge: Callable[[Any, Any], Any] | None = None

    def changes(
        self, subject: str, old: Any, new: Any, table: Mapping[type, Mapping[str, Rule]]
    ) -> Iterator[Change]:
        before, after = self._by_name(old), self._by_name(new)
        for name, part in after.items():
            inside = self.called(subject, part)
            if name in before:
                yield from compare(inside, before[name], part, table)
            else:
                yield Change(inside, self.added, self._told("is new", part))
        for name, part in before.items():
            if name not in after:
                gone = self._told("is gone; it was", part)
                yield Change(self.called(subject, part), self.removed(part), gone)

    def _told(self, words: str, part: Any) -> str:
        what = self.tell(part)
        return f"{words}: {what}" if what else words.partition(";")[0]

    def _by_name(self, parts: Any) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for part in parts:
            name = self.name(part)
            known = found.get(name)
            found[name] = self.merge(known, part) if self.merge and known is not None else part
        return found
