"""What a drill leaves behind, read from the store after everybody has ended: is it whole, and what
does it tell.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from typing import NamedTuple

from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.rollout_analysis import Verdict
from capsign_adapter.decide.rollout_cohort import is_in
from capsign_adapter.decide.rollout_samples import count, summary
from capsign_adapter.decide.rollout_steps import verdict_now
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_adapter.model.rollouts import Figures, RolloutRow, SignsWith
from capsign_adapter.store.interfaces.whole import Store
from capsign_evidence import merkle, told_calls
from capsign_evidence.leaf_reader import Entry, Signed, SignedTwice, decode
from capsign_evidence.proofs import TreeReader
from capsign_evidence.rollout_leaf import RolloutStep, SideFigures
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.types.v1 import failures_pb2
from support.drill import Outcome
from support.fleet import spiffe_id


class Judged(NamedTuple):
    """What somebody who counts comes to."""

    after: SideFigures
    before: SideFigures
    verdict: Verdict


class Evidence:
    """Log and agents' records of a store."""

    def __init__(self, store: Store) -> None:
        size = store.control().tree_size
        self.raw: list[bytes] = []
        while len(self.raw) < size:
            self.raw += store.entries(len(self.raw), 4096)
        self.entries: list[Entry] = [decode(entry) for entry in self.raw]
        self.batches: dict[int, tuple[str, bytes]] = {}
        while some := store.audit_batches(first_leaf=max(self.batches, default=-1) + 1):
            self.batches |= {index: (workload, batch) for index, workload, batch in some}
        self._documents = {
            each.digest: store.policy_document(each.version) or b""
            for each in store.policy_versions()
        }
        self._kept_root = TreeReader(store.hashes, size).root()

    @property
    def signed(self) -> dict[int, Signed | SignedTwice]:
        """Calls that were signed, by leaf."""
        return {
            index: entry
            for index, entry in enumerate(self.entries)
            if isinstance(entry, Signed | SignedTwice)
        }

    @property
    def steps(self) -> list[tuple[int, RolloutStep]]:
        """What rollouts did, with the leaf of each."""
        return [
            (index, entry)
            for index, entry in enumerate(self.entries)
            if isinstance(entry, RolloutStep)
        ]

    def disagreements(self, outcome: Outcome) -> list[str]:
        """Where log, agents' records and what callers hold do not say the same (I4, I5, I8)."""
        signed = self.signed
        calls = Counter((each.group.workload, each.intent_id) for each in signed.values())
        found = [f"two leaves: {call}" for call, count in calls.items() if count > 1]
        reported = self._reported()
        for index, entry in signed.items():
            if reported.get((entry.group.workload, entry.intent_id)) != index:
                found.append(f"leaf {index} is not what an agent reported")
        for call, index in reported.items():
            if index not in signed:
                found.append(f"reported, no leaf: {call}")
        found += [
            f"never, and has a leaf: {intent.hex()}"
            for _, intent in calls
            if intent in outcome.never
        ]
        for one in outcome.held:
            leaf = signed.get(one.call.leaf_index)
            if leaf is None or leaf.group.workload != spiffe_id(one.workload):
                found.append(f"held, no leaf: {one.call.leaf_index}")
            elif _hashes(leaf) != [hash_of(each.value) for each in one.call.signatures]:
                found.append(f"leaf {one.call.leaf_index} has other signatures than were given out")
        if self._root() != self._kept_root:
            found.append("the tree is not that of its entries")
        return found

    def policy_of(self, digest: bytes) -> Policy:
        """The policy that an entry names."""
        return parse_policy(self._documents[digest])

    def counted_again(self, step: RolloutStep) -> Judged:
        """The figures on which this step was decided and what they say, from entries, batches and
        policies alone.
        """
        policy = self.policy_of(step.policy_digest)
        story = [each for _, each in self.steps if each.rollout == step.rollout]
        judged = story[story.index(step) - 1]
        row = replace(
            self._row_of(step),
            stage=RolloutStage(judged.stage),
            step=judged.step,
            stage_since_ms=judged.time_ms,
            figures=Figures(step.first_leaf, step.first_leaf),
        )
        names = {each.name for each in policy.grants if each.key == step.key}
        some = {
            index: batch
            for index, batch in self.batches.items()
            if step.first_leaf <= index < step.through_leaf
        }
        figures = count(row, names, self.raw[step.first_leaf : step.through_leaf], some)
        verdict = verdict_now(replace(row, figures=figures))
        return Judged(summary(figures.after), summary(figures.before), verdict)

    def _row_of(self, step: RolloutStep) -> RolloutRow:
        """The rollout as it was when it began."""
        begun = next(each for _, each in self.steps if each.rollout == step.rollout)
        return RolloutRow(
            id=step.rollout,
            tenant=step.tenant,
            key=step.key,
            before=SignsWith(step.before_version, step.before_algorithm),
            after=SignsWith(step.after_version, step.after_algorithm),
            plan=self.policy_of(begun.policy_digest).rollouts,
            started_by=begun.actor,
            started_ms=begun.time_ms,
        )

    def made_with(self, step: RolloutStep) -> list[tuple[int, Signed | SignedTwice]]:
        """Calls that were signed, first of all, with what this step's rollout leads to."""
        row = self._row_of(step)
        return [(index, entry) for index, entry in self.signed.items() if _is_new(row, entry)[0]]

    def undue(self, step: RolloutStep) -> list[int]:
        """Leaves of calls that were signed with what they were not to be, by the stages of this
        step's rollout: entries stand in the order in which they were decided (I6).
        """
        row, found = self._row_of(step), []
        begun = next(index for index, each in self.steps if each.rollout == step.rollout)
        for index, entry in enumerate(self.entries[begun:], begun):
            if isinstance(entry, RolloutStep) and entry.rollout == step.rollout:
                row = replace(row, stage=RolloutStage(entry.stage), step=entry.step)
            elif isinstance(entry, Signed | SignedTwice) and _is_new(row, entry) != _due(
                row, entry.group.workload
            ):
                found.append(index)
        return found

    def _reported(self) -> dict[tuple[str, bytes], int]:
        """Calls that agents say are done, with the leaf that they name."""
        return {
            (workload, intent_id): named - 1
            for workload, batch in self.batches.values()
            for record in evidence_pb2.AuditBatch.FromString(batch).records
            if record.kind == evidence_pb2.AUDIT_KIND_OUTCOME
            and record.outcome == failures_pb2.OUTCOME_DONE
            for intent_id, named in told_calls.each(record)
        }

    def _root(self) -> bytes:
        tree = merkle.Frontier(0, ())
        for start in range(0, len(self.raw), 4096):
            tree = tree.append([merkle.leaf_hash(raw) for raw in self.raw[start : start + 4096]])[0]
        return tree.root()


def hash_of(signature: bytes) -> bytes:
    """As a leaf has it."""
    return hashlib.sha256(signature).digest()


def _hashes(entry: Signed | SignedTwice) -> list[bytes]:
    if isinstance(entry, SignedTwice):
        return [entry.signature_hash, entry.second_signature_hash]
    return [entry.signature_hash]


def _is_new(row: RolloutRow, entry: Signed | SignedTwice) -> list[bool]:
    """For each signature of a call whether it is by what the rollout leads to."""
    made = [(entry.group.key_version, entry.group.algorithm)]
    if isinstance(entry, SignedTwice):
        made.append((entry.second.key_version, entry.second.algorithm))
    goal = row.after
    return [
        version == goal.version and goal.algorithm in {0, algorithm} for version, algorithm in made
    ]


def _due(row: RolloutRow, workload: str) -> list[bool]:
    """The same, as the stage wants it."""
    first = is_in(row, workload)
    return [first, not first] if row.stage is RolloutStage.DUAL_SIGN else [first]
