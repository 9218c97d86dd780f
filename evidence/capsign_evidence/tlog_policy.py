"""C2SP tlog-policy: which logs and witnesses a verifier trusts, and which cosignatures it demands.

Names are bytes to the specification; here they are text whose undecodable bytes are kept as
surrogates, so that different names stay different.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.cosignature import CosignerKey, parse_key
from capsign_evidence.note import Note, NoteError, NoteVerifier, VerifierKey, open_note

MAX_POLICY_LEN = 1024 * 1024
"""Longest policy file that is read, bytes: an ML-DSA-44 key takes 1.8 kB."""

MAX_LINES = 256
"""Most logs, witnesses and groups together; the specification asks for 32 of each."""

NONE = "none"
"""The quorum that demands no cosignature."""


class PolicyError(ValueError):
    """The policy file is malformed. The text names the line."""


class QuorumError(NoteError):
    """The log signed the checkpoint, and too few witnesses cosigned it. `missing` names those that
    did not.
    """

    def __init__(self, quorum: str, missing: Collection[str]) -> None:
        names = ", ".join(map(_shown, sorted(missing)))
        super().__init__(f"the policy demands {_shown(quorum)}, and these did not cosign: {names}")
        self.missing = tuple(sorted(missing))


@dataclass(frozen=True, slots=True)
class PolicyLog:
    """A log that is trusted; the name of its key is its origin. `url` may be empty."""

    key: VerifierKey | CosignerKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness, under the name that it has in the policy. `url` is its submission prefix, or
    empty.
    """

    name: str
    key: CosignerKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """It has witnessed what at least `least` of its members have."""

    name: str
    least: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cosigned:
    """What a checkpoint says, and which witnesses of the policy cosigned it: name and time."""

    head: TreeHead
    witnesses: Mapping[str, int]
    quorum_s: int
    """When it had been cosigned as late as a whole quorum says, seconds since 1970; 0 if the policy
    demands none.
    """


@dataclass(frozen=True, slots=True)
class TlogPolicy:
    """Logs, witnesses, groups and the quorum; `quorum` is a name of the last two, or NONE."""

    logs: tuple[PolicyLog, ...]
    witnesses: Mapping[str, Witness]
    groups: Mapping[str, Group]
    quorum: str

    def open(self, note: bytes, log: VerifierKey | CosignerKey | None = None) -> Cosigned:
        """What the checkpoint says, if one of the logs signed it and the quorum cosigned it. With
        `log`, the key of the log that is meant, that one must have signed it, whether or not the
        policy names it: a signature of another log of the policy is not enough.

        A wrong signature under a known key makes the whole invalid. Raises QuorumError, NoteError.
        """
        known: list[NoteVerifier] = [one.key for one in self.logs]
        demanded = known if log is None else [log]
        if not demanded:
            raise NoteError("the policy names no log: give the log's key")
        signed = open_note(note, [*demanded, *known])
        head = _head_of(signed, demanded)
        times = self.cosigners(signed)
        self.demand_quorum(times)
        return Cosigned(head, times, self.quorum_s(times))

    def cosigners(self, note: Note) -> dict[str, int]:
        """The witnesses that cosigned, by name in the policy, each with the latest time it states.
        Raises NoteError for a wrong cosignature under a known key.
        """
        by_key = {(one.key.name, one.key.key_id): one for one in self.witnesses.values()}
        times: dict[str, int] = {}
        for line in note.lines:
            witness = by_key.get((line.name, line.key_id))
            if witness is not None:
                witness.key.verify(note.text.encode(), line.signature)
                time_s = witness.key.time_s(line.signature)
                times[witness.name] = max(time_s, times.get(witness.name, 0))
        return times

    def demand_quorum(self, witnesses: Collection[str]) -> None:
        """Raise QuorumError unless these witnesses are enough."""
        if not self._witnessed(self.quorum, witnesses):
            raise QuorumError(self.quorum, self._below(self.quorum) - set(witnesses))

    def quorum_s(self, times: Mapping[str, int]) -> int:
        """Returns the latest time, seconds since 1970, at or after which a quorum of these
        witnesses cosigned; 0 if none did or none is demanded. One witness more that states any time
        at all makes it no later than an honest one of the quorum says.
        """
        if self.quorum == NONE:
            return 0
        for least in sorted(set(times.values()), reverse=True):
            if self._witnessed(self.quorum, {name for name, at in times.items() if at >= least}):
                return least
        return 0

    def _witnessed(self, name: str, witnesses: Collection[str]) -> bool:
        if name == NONE:
            return True
        group = self.groups.get(name)
        if group is None:
            return name in witnesses
        return sum(self._witnessed(one, witnesses) for one in group.members) >= group.least

    def _below(self, name: str) -> set[str]:
        """The witnesses that count for this name."""
        group = self.groups.get(name)
        if group is None:
            return {name}
        return set().union(*(self._below(one) for one in group.members))


def _head_of(note: Note, keys: Iterable[NoteVerifier]) -> TreeHead:
    """The content of a note that is verified, whose origin one of its log's keys is named after."""
    head = TreeHead.parse(note.text)
    lines = {(line.name, line.key_id) for line in note.lines}
    signers = [key for key in keys if (key.name, key.key_id) in lines and key.name == head.origin]
    if not signers:
        raise NoteError("the checkpoint is of another log than its key")
    covered = any(key.covers_extensions for key in signers)
    return head if covered else replace(head, extensions=())


def parse_policy(data: bytes) -> TlogPolicy:
    """The policy in a file. Raises PolicyError, which names the line."""
    if len(data) > MAX_POLICY_LEN:
        raise PolicyError(f"a policy has at most {MAX_POLICY_LEN} bytes")
    if any((byte < 0x20 and byte not in b"\t\n") or byte == 0x7F for byte in data):
        raise PolicyError("a policy has no control characters but tab and newline")
    if data and not data.endswith(b"\n"):
        raise PolicyError("the last line of the policy does not end: it may have been cut off")
    reading = _Reading()
    for number, line in enumerate(data.split(b"\n"), 1):
        words = [
            word.decode("utf-8", "surrogateescape")
            for word in line.replace(b"\t", b" ").split(b" ")
            if word
        ]
        if not words or words[0].startswith("#"):
            continue
        try:
            reading.take(words)
        except (PolicyError, NoteError) as error:
            raise PolicyError(f"line {number}: {error}") from None
    return reading.policy()


@dataclass(slots=True)
class _Reading:
    """A policy of which the first lines were read."""

    logs: list[PolicyLog] = field(default_factory=list)
    witnesses: dict[str, Witness] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    quorum: str | None = None
    _members: set[str] = field(default_factory=set)

    def take(self, words: list[str]) -> None:
        """Read one line, split into words."""
        keyword, *rest = words
        if len(self.logs) + len(self.witnesses) + len(self.groups) >= MAX_LINES:
            raise PolicyError(f"a policy has at most {MAX_LINES} logs, witnesses and groups")
        match keyword, rest:
            case "log", [key] | [key, _]:
                self._log(key, *rest[1:])
            case "witness", [name, key] | [name, key, _]:
                self._witness(name, key, *rest[2:])
            case "group", [name, count, *members]:
                self._group(name, count, members)
            case "quorum", [name]:
                self._quorum(name)
            case (("log" | "witness" | "group" | "quorum"), _):
                raise PolicyError(f"{keyword} has {len(rest)} words after it, not as many as that")
            case _:
                raise PolicyError("a line begins with log, witness, group or quorum")

    def policy(self) -> TlogPolicy:
        """The whole. Raises PolicyError."""
        if self.quorum is None:
            raise PolicyError("the policy has no quorum line; `quorum none` demands no witness")
        return TlogPolicy(tuple(self.logs), self.witnesses, self.groups, self.quorum)

    def _log(self, text: str, url: str = "") -> None:
        key = parse_key(_utf8(text))
        if any(one.key.public_key == key.public_key for one in self.logs):
            raise PolicyError("two logs have the same public key")
        self.logs.append(PolicyLog(key, url))

    def _witness(self, name: str, text: str, url: str = "") -> None:
        self._new_name(name)
        key = parse_key(_utf8(text))
        if not isinstance(key, CosignerKey):
            raise PolicyError(
                "a witness has a key of type 0x04 or 0x06: this one signs plain notes"
            )
        if any(one.key.public_key == key.public_key for one in self.witnesses.values()):
            raise PolicyError("two witnesses have the same public key")
        self.witnesses[name] = Witness(name, key, url)

    def _group(self, name: str, count: str, members: list[str]) -> None:
        self._new_name(name)
        if not members:
            raise PolicyError("a group has at least one member")
        for one in members:
            if one not in self.witnesses and one not in self.groups:
                raise PolicyError(f"{_shown(one)} is no witness or group of a line before this")
            if one in self._members:
                raise PolicyError(f"{_shown(one)} is a member already, and can be one only once")
            self._members.add(one)
        least = _threshold(count, len(members))
        self.groups[name] = Group(name, least, tuple(members))

    def _quorum(self, name: str) -> None:
        if self.quorum is not None:
            raise PolicyError("there are two quorum lines")
        if name != NONE and name not in self.witnesses and name not in self.groups:
            raise PolicyError(f"{_shown(name)} is no witness or group of a line before this")
        self.quorum = name

    def _new_name(self, name: str) -> None:
        if name == NONE or name in self.witnesses or name in self.groups:
            raise PolicyError(f"the name {_shown(name)} is taken")


def _threshold(count: str, members: int) -> int:
    if count in ("any", "all"):
        return 1 if count == "any" else members
    if not (count.isascii() and count.isdigit() and len(count) <= 4):
        raise PolicyError("how many of the members: all, any or a decimal number")
    if not 1 <= int(count) <= members:
        raise PolicyError(f"of {members} members, {count} can never be what is demanded")
    return int(count)


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PolicyError("the name of a key is UTF-8") from None
    return text


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
