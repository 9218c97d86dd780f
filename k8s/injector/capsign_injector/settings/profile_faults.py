"""What is wrong with a profile beyond its types. Pure."""

from __future__ import annotations

import re
from fractions import Fraction

from capsign_injector import quantity
from capsign_injector.server_settings import DNS_NAME
from capsign_injector.settings.model import Profile

_POLICY_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

Fault = tuple[str, str]
"""A key, and a sentence that goes on after it and says the fix."""

_QUANTITIES = (
    "cpu_request",
    "cpu_limit",
    "cpu_request_max",
    "memory_request",
    "memory_limit",
    "memory_limit_per_socket",
    "memory_limit_max",
    "ephemeral_storage",
)
_MAY_BE_EMPTY = {"cpu_limit", "memory_limit_per_socket"}


def faults(profile: Profile, state_bytes: int) -> list[Fault]:
    """`state_bytes`: what the agent's state takes of its memory."""
    amounts: dict[str, Fraction] = {}
    found = [*_name_faults(profile), *_quantity_faults(profile, amounts)]
    return found or _order_faults(amounts, state_bytes)


def _name_faults(profile: Profile) -> list[Fault]:
    found = [
        (
            f"grants[{index}]",
            "must be the name of a grant: lower-case letters, digits, '.', '_' and '-', "
            "at most 64.",
        )
        for index, grant in enumerate(profile.grants)
        if not _POLICY_NAME.fullmatch(grant)
    ]
    found += [
        (f"namespaces[{index}]", "must be the name of a namespace.")
        for index, name in enumerate(profile.namespaces)
        if not DNS_NAME.fullmatch(name)
    ]
    return found


def _quantity_faults(profile: Profile, amounts: dict[str, Fraction]) -> list[Fault]:
    """Fills `amounts` with those that can be read."""
    found = []
    for key in _QUANTITIES:
        text = getattr(profile, key)
        if key in _MAY_BE_EMPTY and not text:
            continue
        try:
            amounts[key] = quantity.parse(text)
        except quantity.NotAQuantityError:
            amounts[key] = Fraction(0)
        if not amounts[key]:
            found.append((key, "must be a quantity above 0 such as 10m (cpu) or 64Mi (memory)."))
    return found


def _order_faults(amounts: dict[str, Fraction], state_bytes: int) -> list[Fault]:
    found = []
    for lesser, greater in (
        ("cpu_request", "cpu_request_max"),
        ("cpu_request", "cpu_limit"),
        ("memory_request", "memory_limit"),
        ("memory_limit", "memory_limit_max"),
    ):
        if greater in amounts and amounts[lesser] > amounts[greater]:
            found.append((lesser, f"must not be above `{greater}`."))
    if amounts["memory_limit"] < 2 * state_bytes:
        found.append(
            (
                "memory_limit",
                f"must be at least {2 * state_bytes // 2**20}Mi: `journal_max_bytes` is "
                f"kept in that memory too.",
            )
        )
    return found
