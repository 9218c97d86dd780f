"""Signatures that wait for an agent's record, and agents' records that wait for a signature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count, repeat

from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.types.v1 import failures_pb2

from capsign_evidence.incident_leaf import IncidentKind
from capsign_evidence.leaf_fields import LeafError
from capsign_evidence.reconcile import leaves, state
from capsign_evidence.reconcile.incidents import IncidentKey, Standing
from capsign_evidence.reconcile.leaves import SignedLeaf
from capsign_evidence.reconcile.state import Bounds, Group, State, Workload, bound
from capsign_evidence.reconcile.timing import Timing

EntryAt = Callable[[int], bytes | None]
"""The entry with an index, or None if it cannot be had. Rarely called: for an outcome that names an
entry which was settled before.
"""

Call = tuple[int, int, bytes, int]
"""Of a record about a call: kind, outcome, intent id, and the entry that it names, plus one."""

Wrong = Callable[[int, tuple[bytes, int]], None]

_INTENT = int(pb.AUDIT_KIND_INTENT)
_DONE, _REFUSED = failures_pb2.OUTCOME_DONE, failures_pb2.OUTCOME_REFUSED
_LATE, _MISSING = IncidentKind.LATE, IncidentKind.SIGNED_NOT_REPORTED
_SILENCE = IncidentKind.SILENCE


class Signatures:
    """Works on the state that it is given."""

    def __init__(
        self,
        known: State,
        standing: Standing,
        timing: Timing,
        entry_at: EntryAt,
        bounds: Bounds,
    ) -> None:
        self._bounds = bounds
        self._state = known
        self._standing = standing
        self._timing = timing
        self._entry_at = entry_at

    def signed(self, index: int, leaf: SignedLeaf) -> None:
        """An entry about a signature."""
        mine = self._workload(leaf.workload)
        if mine.asked.pop(leaf.intent_id, None) is not None:
            mine.signed[leaf.intent_id] = index
            bound(mine.signed, state.MAX_SIGNED)
            return
        key = leaf.certificate_key
        group = mine.groups.get(key) or mine.groups.setdefault(key, Group())
        group.fresh[leaf.intent_id] = (index, self._state.now_ms)
        mine.where[leaf.intent_id] = key
        while len(mine.where) > self._bounds.open:
            self._forget_oldest(mine)

    def signed_each(self, first: int, leaf: SignedLeaf, intent_ids: Sequence[bytes]) -> None:
        """As `signed` for the entries from `first` on, which differ from `leaf` in the intent only
        (and in hashes, which are not looked at).
        """
        mine = self._workload(leaf.workload)
        room = len(mine.where) + len(intent_ids) <= self._bounds.open
        if not room or not mine.asked.keys().isdisjoint(intent_ids):
            for index, intent_id in enumerate(intent_ids, first):
                self.signed(index, leaf._replace(intent_id=intent_id))
            return
        key = leaf.certificate_key
        group = mine.groups.get(key) or mine.groups.setdefault(key, Group())
        found = zip(count(first), repeat(self._state.now_ms), strict=False)
        group.fresh.update(zip(intent_ids, found, strict=False))
        mine.where.update(dict.fromkeys(intent_ids, key))

    def told(self, workload: str, calls: Iterable[Call], now_ms: int, wrong: Wrong) -> int:
        """What an agent says of calls, in its order, as `asked`, `done` and `failed` for each; most
        are about a signature that waits for it. `wrong` is given the place of each that names an
        entry about something else, its intent, and what it names. Returns the last entry that was
        named rightly, plus one; 0 for none.
        """
        mine, good = self._workload(workload), [0]
        where, groups, asked, signed = mine.where, mine.groups, mine.asked, mine.signed
        for place, (kind, outcome, intent_id, named) in enumerate(calls):
            if kind == _INTENT:
                key = where.get(intent_id)
                found = groups[key].fresh.pop(intent_id, None) if key is not None else None
                if found is None:
                    self.asked(workload, intent_id, now_ms)
                    continue
                del where[intent_id]
                signed[intent_id] = found[0]
                if len(signed) > state.MAX_SIGNED:
                    bound(signed, state.MAX_SIGNED)
            elif outcome != _DONE:
                self.failed(workload, intent_id, refused=outcome == _REFUSED)
            elif named and signed.get(intent_id) == named - 1 and intent_id not in asked:
                del signed[intent_id]
                good.append(named)
            elif self.done(workload, intent_id, named - 1):
                good.append(named)
            else:
                wrong(place, (intent_id, named))
        return max(good)

    def asked(self, workload: str, intent_id: bytes, now_ms: int) -> None:
        """An agent says that it was about to ask for this."""
        mine = self._workload(workload)
        index = self._reported(workload, mine, intent_id)
        if index is None:
            index = mine.signed.get(intent_id)
        if index is None:
            mine.asked[intent_id] = now_ms
            bound(mine.asked, self._bounds.open)
        else:
            mine.signed[intent_id] = index
            bound(mine.signed, state.MAX_SIGNED)

    def done(self, workload: str, intent_id: bytes, index: int) -> bool:
        """An agent says that entry `index` is about this intent. Returns whether it is."""
        mine = self._workload(workload)
        mine.asked.pop(intent_id, None)
        known = mine.signed.pop(intent_id, None)
        if known is None:
            known = self._reported(workload, mine, intent_id)
        if known == index:
            return True
        entry = self._entry_at(index) if 0 <= index < self._state.position else None
        if entry is None or leaves.kind_of(entry) not in leaves.SIGNED:
            return False
        try:
            leaf = leaves.signed(entry)
        except (LeafError, UnicodeDecodeError):
            return False
        if (leaf.workload, leaf.intent_id) != (workload, intent_id):
            return False
        if known is None:
            self._told_after_all(workload, mine, leaf.certificate_key)
        return True

    def failed(self, workload: str, intent_id: bytes, *, refused: bool) -> None:
        """An agent says that this was refused, or that it does not know what came of it."""
        mine = self._workload(workload)
        mine.signed.pop(intent_id, None)
        if refused:
            mine.asked.pop(intent_id, None)

    def claimed(self, workload: str, certificate_key: bytes, boot_id: bytes) -> None:
        """A life says that it has a certificate for this key."""
        mine = self._workload(workload)
        boots = mine.claims.setdefault(certificate_key, [])
        if boot_id not in boots:
            boots.append(boot_id)
        if len(boots) > state.MAX_LIVES_OF_KEY:
            boots[:] = [one for one in boots if one in self._state.lives or one == boot_id]
            del boots[: -state.MAX_LIVES_OF_KEY]
        mine.claimed_ms.pop(certificate_key, None)
        mine.claimed_ms[certificate_key] = self._state.now_ms
        while len(mine.claimed_ms) > state.MAX_CLAIMS:
            self._forget_claim(mine, next(iter(mine.claimed_ms)))
        self._standing.ended(IncidentKey(_SILENCE, workload, b"", certificate_key))

    def sweep(self) -> None:
        """Move what has become due, and forget what is settled."""
        for name, mine in list(self._state.workloads.items()):
            for key, group in list(mine.groups.items()):
                self._move(name, key, group)
                if group.untold:
                    self._tell_again(name, key, group)
                if not (group.fresh or group.late or group.missing or group.lost):
                    del mine.groups[key]
            self._forget_old(mine)
            self._forget_claims(mine)
            if not (mine.groups or mine.asked or mine.signed or mine.claims or mine.unjudged):
                del self._state.workloads[name]

    def conclude(self) -> None:
        """Nothing more will come: judge also what is not late yet, where it can be judged."""
        for name, mine in self._state.workloads.items():
            for key, group in mine.groups.items():
                for intent_id, what in [*group.late.items(), *group.fresh.items()]:
                    if self._owed(mine, key, what[0], what[1]):
                        (group.late if intent_id in group.late else group.fresh).pop(intent_id)
                        self._miss(name, key, group, intent_id, what)

    def _forget_old(self, mine: Workload) -> None:
        due = self._state.now_ms - self._timing.cut_ms
        while mine.asked:
            first = next(iter(mine.asked))
            if mine.asked[first] > due:
                return
            del mine.asked[first]

    def _forget_claims(self, mine: Workload) -> None:
        """Forget whose a certificate key was once that life and the certificate have ended."""
        due = self._state.now_ms - self._timing.cut_ms
        if len(mine.claimed_ms) < len(mine.claims):  # an earlier release wrote no times
            for key in mine.claims:
                mine.claimed_ms.setdefault(key, self._state.now_ms)
        while mine.claimed_ms:
            key = next(iter(mine.claimed_ms))
            lives = mine.claims.get(key, [])
            if mine.claimed_ms[key] > due:
                return
            if key in mine.groups or any(boot_id in self._state.lives for boot_id in lives):
                mine.claimed_ms[key] = mine.claimed_ms.pop(key)  # after the others next time
                return
            self._forget_claim(mine, key)

    def _forget_claim(self, mine: Workload, key: bytes) -> None:
        del mine.claimed_ms[key]
        mine.claims.pop(key, None)

    def _forget_oldest(self, mine: Workload) -> None:
        """There are too many: the oldest is not judged any more. A long backlog of an honest agent
        is no proof of anything.
        """
        intent_id = next(iter(mine.where))
        group = mine.groups.get(mine.where.pop(intent_id))
        if group is None:
            return
        if group.missing.pop(intent_id, None) is not None:
            group.lost += 1
            return
        mine.unjudged += 1
        if group.fresh.pop(intent_id, None) is None:
            group.late.pop(intent_id, None)

    def _told_after_all(self, workload: str, mine: Workload, key: bytes) -> None:
        """An agent told of a signature that is not remembered by name any more."""
        group = mine.groups.get(key)
        if group is not None and group.lost:
            group.lost -= 1
            self._not_missing(workload, key, group)
        else:
            mine.unjudged = max(0, mine.unjudged - 1)

    def _tell_again(self, workload: str, key: bytes, group: Group) -> None:
        intent_id, what = next(iter(group.missing.items()), (b"", (-1, 0)))
        count = len(group.missing) + group.lost
        group.untold = not self._find(_MISSING, workload, key, intent_id, what[0], count)

    def _move(self, workload: str, key: bytes, group: Group) -> None:
        """Move what is due on, oldest first."""
        now_ms, timing = self._state.now_ms, self._timing
        mine = self._state.workloads[workload]
        while group.fresh:
            intent_id, (index, at_ms) = next(iter(group.fresh.items()))
            if at_ms + timing.report_ms > now_ms:
                break
            del group.fresh[intent_id]
            if not group.late and self._owed(mine, key, index, at_ms):
                self._miss(workload, key, group, intent_id, (index, at_ms))
            else:
                group.late[intent_id] = (index, at_ms)
                self._find(_LATE, workload, key, intent_id, index)
        while group.late:
            intent_id, (index, at_ms) = next(iter(group.late.items()))
            if not self._owed(mine, key, index, at_ms):
                self._quiet(workload, key, at_ms)
                return
            del group.late[intent_id]
            self._miss(workload, key, group, intent_id, (index, at_ms))
        self._not_late(workload, key)

    def _owed(self, mine: Workload, key: bytes, index: int, at_ms: int) -> bool:
        """Whether nobody can still hold the record of this signature in good faith."""
        if at_ms + self._timing.cut_ms <= self._state.now_ms:
            return True
        claims = mine.claims.get(key)
        if not claims:
            return False
        lives = (self._state.lives.get(boot_id) for boot_id in claims)
        return all(life is None or life.horizon > index for life in lives)

    def _quiet(self, workload: str, key: bytes, at_ms: int) -> None:
        """The oldest that is late cannot be judged: if that is because no agent with this key was
        ever heard of, that is silence too.
        """
        mine = self._state.workloads[workload]
        if at_ms + self._timing.silence_ms <= self._state.now_ms and key not in mine.claims:
            silence = IncidentKey(_SILENCE, workload, b"", key)
            if not self._standing.has(silence):
                self._standing.found(silence, self._state.wall_ms)

    def _miss(
        self, workload: str, key: bytes, group: Group, intent_id: bytes, what: tuple[int, int]
    ) -> None:
        if not self._find(_MISSING, workload, key, intent_id, what[0]):
            group.untold = True
        if len(group.missing) < self._bounds.missing:
            group.missing[intent_id] = what
        else:
            group.lost += 1
            self._state.workloads[workload].where.pop(intent_id, None)

    def _reported(self, workload: str, mine: Workload, intent_id: bytes) -> int | None:
        """Settle a signature that was not reported; returns its index, None if there is none."""
        key = mine.where.pop(intent_id, None)
        if key is None:
            return None
        group = mine.groups[key]
        found = group.fresh.pop(intent_id, None)
        if found is None:
            found = group.late.pop(intent_id, None)
            if found is not None and not group.late:
                self._not_late(workload, key)
        if found is None:
            found = group.missing.pop(intent_id)
            self._not_missing(workload, key, group)
        return found[0]

    def _not_missing(self, workload: str, key: bytes, group: Group) -> None:
        """The incident ends if none is missing any more."""
        if not group.missing and not group.lost:
            group.untold = False
            self._standing.ended(IncidentKey(_MISSING, workload, b"", key))

    def _not_late(self, workload: str, key: bytes) -> None:
        self._standing.ended(IncidentKey(_LATE, workload, b"", key))
        self._standing.ended(IncidentKey(_SILENCE, workload, b"", key))

    def _find(
        self,
        kind: IncidentKind,
        workload: str,
        key: bytes,
        intent_id: bytes,
        index: int,
        count: int = 1,
    ) -> bool:
        return self._standing.found(
            IncidentKey(kind, workload, b"", key),
            self._state.wall_ms,
            intent_id=intent_id,
            leaf_index=index,
            count=count,
        )

    def _workload(self, name: str) -> Workload:
        mine = self._state.workloads.get(name)
        if mine is None:
            mine = self._state.workloads[name] = Workload()
        return mine
