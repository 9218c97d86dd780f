"""A rollout for people and machines: its values, a line, and the live view. Pure, but for rich."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb
    from rich.console import RenderableType

DONE = "done"
ENDED_OTHERWISE = frozenset({"aborted", "rolled-back", "overtaken"})
WORDS = {
    "publish": "the public keys are being published",
    "propagate": "verifiers fetch the new public keys",
    "canary": "a part of the workloads signs with what is new",
    "dual-sign": "one call answers both signatures",
    "promote": "all sign with what is new",
    "retire": "what was before waits to be deactivated",
    "done": "all sign with what is new, and what was before is deactivated",
    "aborted": "a person ended it: all sign as before",
    "rolled-back": "a trigger ended it: all sign as before",
    "overtaken": "another rollout, or another act on its versions, came before its end",
}
MOST_NAMED = 8
"""Readers of public keys that the live view names."""

BAR = 24
"""Width of the live view's bars, characters."""


def stage_of(rollout: pb.Rollout) -> str:
    """Its stage as people write it."""
    return _named("RolloutStage", rollout.stage)


def is_over(rollout: pb.Rollout) -> bool:
    """Whether it has ended, in one way or another."""
    return stage_of(rollout) in {DONE, *ENDED_OTHERWISE}


def values_of(rollout: pb.Rollout) -> dict[str, Any]:
    """All that is known, for `-o json`."""
    return {
        "rollout": f"{rollout.tenant}/{rollout.key}",
        "number": rollout.number,
        "stage": stage_of(rollout),
        "step": rollout.step,
        "pace": "ended" if is_over(rollout) else _named("RolloutPace", rollout.pace),
        "from": _signs(rollout.before),
        "to": _signs(rollout.after),
        "workloads": f"{rollout.workloads_in} of {rollout.workloads}",
        "remaining_seconds": rollout.remaining_ms // 1000,
        "verdict": _named("RolloutVerdict", rollout.verdict) if rollout.verdict else "",
        "triggers": [trigger_text(each) for each in rollout.triggers],
        "new_side": _side(rollout.new_side),
        "old_side": _side(rollout.old_side),
        "verifiers": verifiers_of(rollout),
        "left_behind": list(rollout.left_behind),
        "revision": rollout.revision,
        "started_by": rollout.started_by,
        "started_at": time_text(rollout.started_at.ToMilliseconds()),
        "undoes": rollout.undoes,
        "newest": rollout.newest,
        "first_leaf": rollout.first_leaf,
        "through_leaf": rollout.through_leaf,
        "id": rollout.id.hex(),
    }


def line_of(rollout: pb.Rollout) -> str:
    """It in one line, for who has no terminal."""
    stage = stage_of(rollout)
    parts = [f"{rollout.tenant}/{rollout.key}", f"#{rollout.number}", where(rollout)]
    if rollout.pace > 1:
        parts.append(pace_text(rollout))
    if stage in {"canary", "dual-sign", "promote"}:
        parts.append(f"{rollout.workloads_in} of {rollout.workloads} workloads")
        parts += [trigger_text(each) for each in rollout.triggers]
    elif stage == "propagate" and rollout.HasField("readiness"):
        parts.append(readiness_text(rollout))
    if rollout.remaining_ms:
        parts.append(f"{left(rollout.remaining_ms)} left")
    return " · ".join(parts)


def verifiers_of(rollout: pb.Rollout) -> dict[str, Any]:
    """Who has fetched the public keys of the new version, and who has not; empty if nobody has
    to.
    """
    if not rollout.HasField("readiness"):
        return {}
    found = rollout.readiness
    shown = found.HasField("visible_since")
    return {
        "visible_since": time_text(found.visible_since.ToMilliseconds()) if shown else "",
        "required": found.required,
        "fetched": found.fetched,
        "missing": found.missing,
        "missing_readers": [
            {
                "grant": each.grant,
                "workload": each.workload or "by HTTPS",
                "version": each.version,
                "sequence": each.sequence,
                "fetched_at": time_text(each.fetched_at.ToMilliseconds()),
            }
            for each in found.missing_readers
        ],
        "fetches_by_https": found.anonymous_fetches,
    }


def verifiers_text(rollout: pb.Rollout) -> str:
    """Who has fetched the new public keys and who has not, a line each; empty if nobody has to."""
    if not rollout.HasField("readiness"):
        return ""
    named = [f"missing: {who}" for who in missing_texts(rollout)]
    return "\n".join([readiness_text(rollout), *named])


def missing_texts(rollout: pb.Rollout) -> list[str]:
    """Who has not fetched the new public keys: the first few, and how many more there are."""
    found = rollout.readiness
    texts = [
        f"{each.workload or 'whoever asks by HTTPS'} ({each.grant}) has version {each.version}, of "
        f"{time_text(each.fetched_at.ToMilliseconds())}"
        for each in found.missing_readers[:MOST_NAMED]
    ]
    more = found.missing - len(texts)
    return [*texts, f"{more} more"] if more else texts


def readiness_text(rollout: pb.Rollout) -> str:
    """How many have the new public keys, and how many of those who should have not."""
    found = rollout.readiness
    text = f"{found.fetched} of {found.fetched + found.missing} readers have the new public keys"
    if found.anonymous_fetches:
        text += f", {found.anonymous_fetches} fetches by HTTPS"
    return f"{text}, and the canary waits for the others" if _is_waiting(rollout) else text


def _is_waiting(rollout: pb.Rollout) -> bool:
    found = rollout.readiness
    return bool(found.required and found.missing and not rollout.remaining_ms)


def where(rollout: pb.Rollout) -> str:
    """The stage, with the canary's percent."""
    stage = stage_of(rollout)
    if stage != "canary":
        return stage
    percents = [each.percent for each in rollout.plan if each.percent]
    return f"canary {percents[rollout.step]}%" if rollout.step < len(percents) else stage


def pace_text(rollout: pb.Rollout) -> str:
    """Why it does not go on."""
    if _named("RolloutPace", rollout.pace) == "held":
        return "paused"
    return "paused: too few samples to say"


def trigger_text(trigger: pb.RolloutTrigger) -> str:
    """A measure beside its bound."""
    unit = (lambda value: f"{value} ms") if trigger.is_time else _percent
    enough = "" if trigger.samples >= trigger.needed else f" of the {trigger.needed} it takes"
    text = (
        f"{trigger.name} {unit(trigger.value)} (bound {unit(trigger.bound)}, "
        f"{trigger.samples} samples{enough})"
    )
    if trigger.breached:
        return f"{text} BREACHED"
    return f"{text} on the word of few reporters" if trigger.doubtful else text


def picture_of(rollout: pb.Rollout, steps: Any) -> RenderableType:
    """The live view: stages, cohort, samples against thresholds, time left."""
    from rich.console import Group
    from rich.text import Text

    title = Text.assemble(
        (f"{rollout.tenant}/{rollout.key}", "bold"),
        f"  rollout {rollout.number}  {_signs(rollout.before)} → {_signs(rollout.after)}",
    )
    parts: list[RenderableType] = [title, Text(), *_stage_lines(rollout), Text()]
    if rollout.triggers:
        share = rollout.workloads_in / rollout.workloads if rollout.workloads else 0.0
        parts.append(
            Text(f"workloads  {_bar(share)} {rollout.workloads_in} of {rollout.workloads}")
        )
        parts += [_trigger_line(each) for each in rollout.triggers]
        parts.append(Text())
    if stage_of(rollout) in {"propagate", "canary"} and rollout.HasField("readiness"):
        parts += [*_reader_lines(rollout), Text()]
    if steps:
        last = steps[-1]
        parts.append(Text(f"last: {last.act} by {last.actor or 'the rollout itself'}", "dim"))
    return Group(*parts)


def _reader_lines(rollout: pb.Rollout) -> list[Any]:
    from rich.text import Text

    found = rollout.readiness
    known = found.fetched + found.missing
    share = found.fetched / known if known else 1.0
    style = "yellow" if found.missing else "green"
    lines = [Text(f"verifiers  {_bar(share)} {readiness_text(rollout)}", style)]
    return lines + [Text(f"           {who}", "yellow") for who in missing_texts(rollout)]


def _stage_lines(rollout: pb.Rollout) -> list[Any]:
    from rich.text import Text

    now, lines, canaries = _place(rollout), [], 0
    for index, stage in enumerate(rollout.plan):
        name = _named("RolloutStage", stage.stage)
        label = f"canary {stage.percent}%" if stage.percent else name
        canaries += bool(stage.percent)
        mark, style = ("✓", "green") if index < now else (" ", "dim")
        text = f"{mark} {label:<12}"
        if index == now and stage_of(rollout) not in ENDED_OTHERWISE:
            part = 1 - rollout.remaining_ms / stage.bake_ms if stage.bake_ms else 1.0
            rest = f"{left(rollout.remaining_ms)} left" if rollout.remaining_ms else ""
            text = f"● {label:<12} {_bar(part)} {rest}"
            style = "bold"
        lines.append(Text(text, style))
    stage_now = stage_of(rollout)
    styles = {DONE: "bold green", "aborted": "bold yellow"}
    note = pace_text(rollout) if rollout.pace > 1 and stage_now != DONE else ""
    words = f"{stage_now}: {WORDS[stage_now]}" + (f" · {note}" if note else "")
    style = styles.get(stage_now, "bold red" if stage_now in ENDED_OTHERWISE else "")
    return [*lines, Text(), Text(words, style)]


def _place(rollout: pb.Rollout) -> int:
    """Where in the plan it is; its length for what is done."""
    seen = -1
    for index, stage in enumerate(rollout.plan):
        if stage.stage == rollout.stage:
            seen += 1
            if not stage.percent or seen == rollout.step:
                return index
    return len(rollout.plan) if stage_of(rollout) == DONE else 0


def _trigger_line(trigger: pb.RolloutTrigger) -> Any:
    from rich.text import Text

    enough = trigger.samples / trigger.needed if trigger.needed else 1.0
    sound = enough >= 1 and not trigger.doubtful
    style = "red" if trigger.breached else "green" if sound else "yellow"
    return Text(f"samples    {_bar(enough)} {trigger_text(trigger)}", style)


def _bar(part: float) -> str:
    filled = round(BAR * min(1.0, max(0.0, part)))
    return "█" * filled + "░" * (BAR - filled)


def left(ms: int) -> str:
    """A duration as people read it."""
    seconds = -(-ms // 1000)
    if seconds < 120:
        return f"{seconds} s"
    minutes = -(-seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def time_text(ms: int) -> str:
    """RFC 3339, seconds."""
    from datetime import UTC, datetime

    return (
        datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    )


def side_text(side: pb.RolloutSide) -> str:
    """What was counted, in a few words."""
    text = f"{side.signed} signed"
    if side.refused or side.unanswered:
        text += f", {side.refused + side.unanswered} failed"
    if side.verified or side.verify_failed:
        text += f", {side.verified} verified, {side.verify_failed} did not"
    return text


def _side(side: pb.RolloutSide) -> dict[str, int]:
    return {field.name: getattr(side, field.name) for field in side.DESCRIPTOR.fields}


def _signs(side: pb.SignsWith) -> str:
    from capsign_wire.algorithms import ALGORITHMS

    row = ALGORITHMS.get(side.algorithm)
    return f"version {side.version}" + (f" {row.name}" if row else "")


def _percent(ppm: int) -> str:
    return f"{ppm / 10_000:.4f}".rstrip("0").rstrip(".") + "%"


def _named(enum: str, number: int) -> str:
    from capsign_wire.adapter.v1 import rollouts_pb2 as pb

    value = pb.DESCRIPTOR.enum_types_by_name[enum].values_by_number.get(number)
    prefix = {"RolloutStage": "ROLLOUT_STAGE_", "RolloutPace": "ROLLOUT_PACE_"}.get(
        enum, "ROLLOUT_VERDICT_"
    )
    return value.name.removeprefix(prefix).lower().replace("_", "-") if value else str(number)
