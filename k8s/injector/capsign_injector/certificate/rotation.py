"""Decides when the injector's own authority and serving certificate change: from what is stored and
published to the next step. Pure.

Every step follows from one rule. An API server may still trust any set of authorities that was
published within the last `propagation_s` seconds, and a replica may still serve any leaf that was
stored within them. So an authority is published for that long before a leaf of its own is stored,
and stays published for that long after the leaf of another one was. `docs/decisions/0014` has the
argument.

Times are seconds since 1970 by the API server's clock, because it is the API servers that verify.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from capsign_injector.certificate import certificates, issuing
from capsign_injector.certificate.certificates import Facts, Pair


@dataclass(frozen=True, slots=True)
class Terms:
    """The lifetimes that the settings ask for; see `server_settings.Server`."""

    names: tuple[str, ...]
    authority_life_s: int
    leaf_life_s: int
    propagation_s: int
    patience_s: int
    """How long a replica that serves nothing leaves an empty Secret to replicas that serve."""


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that the Secret holds. It never has both a next and a previous authority."""

    authority: Pair
    """The authority that signed the leaf."""
    leaf: Pair
    next: Pair | None = None
    """The authority that will take over."""
    next_published_at: int | None = None
    """Since when the next authority has been in the webhook configuration without interruption."""
    previous: bytes | None = None
    """Certificate of the authority before. Its key is gone."""
    previous_until: int = 0
    """When the previous authority need not be trusted any more."""
    rotation: str = ""
    """The last requested rotation that was carried out."""

    def bundle(self) -> bytes:
        """What must be published: PEM of every authority, the leaf's first."""
        return b"".join(
            (
                self.authority.certificate,
                self.next.certificate if self.next else b"",
                self.previous or b"",
            )
        )


@dataclass(frozen=True, slots=True)
class Store:
    """Write this into the Secret, unless somebody else has written meanwhile. `why` names the step
    in the log.
    """

    material: Material
    why: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Write exactly this into the webhook configuration, unless somebody else has changed it
    meanwhile.
    """

    bundle: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing before `until`."""

    until: int


Step = Store | Publish | Wait


@dataclass(frozen=True, slots=True)
class View:
    """What one replica sees. `published` is read before `stored`, so that a replica with an
    outdated view does not unpublish what another one has stored.
    """

    stored: Material | None
    """What the Secret holds; None if it is empty."""
    held: Material | None
    """What this replica serves with; None if nothing yet."""
    published: frozenset[bytes]
    """DER of the authorities that every webhook of the configuration trusts."""
    now: int
    rotation: str = ""
    """The rotation that the operator requests."""
    empty_since: int = 0
    """When this replica first saw the Secret empty, if it is."""


def next_step(view: View, terms: Terms) -> Step:
    """The next step to take."""
    stored, now, rotation, trusted = view.stored, view.now, view.rotation, view.published
    if stored is None:
        if view.held is None and trusted and now < view.empty_since + terms.patience_s:
            return Wait(view.empty_since + terms.patience_s)
        return _fill(view.held, rotation, now, terms)
    leaf, authority = (
        certificates.read(stored.leaf.certificate),
        certificates.read(stored.authority.certificate),
    )
    if not authority.valid(now):
        return _rescue(stored, rotation, now, terms)
    if not leaf.valid(now) or not leaf.names.issuperset(terms.names):
        return _renew(stored, leaf, now, terms)
    upcoming = certificates.read(stored.next.certificate) if stored.next else None
    if upcoming and stored.next_published_at is not None and upcoming.der not in trusted:
        return Store(replace(stored, next_published_at=None), "authority_unpublished_by_others")
    if trusted != {one.der for one in certificates.read_all(stored.bundle())}:
        return Publish(stored.bundle())
    return _in_order(stored, leaf, authority, rotation, now, terms)


def sure_until(material: Material, seen_at: int, terms: Terms) -> int:
    """Until when every API server accepts the leaf if this replica hears nothing more from the
    cluster after `seen_at`.
    """
    leaf = certificates.read(material.leaf.certificate)
    moves = seen_at + terms.propagation_s
    if material.next is not None and material.next_published_at is not None:
        moves = max(seen_at, material.next_published_at + terms.propagation_s)
    return min(moves + terms.propagation_s, leaf.not_after)


def _in_order(
    stored: Material, leaf: Facts, authority: Facts, rotation: str, now: int, terms: Terms
) -> Step:
    """Everything is valid and published: the step that is due by time."""
    due = [leaf.two_thirds()] if leaf.not_after < authority.not_after else []
    if stored.next is not None:
        if stored.next_published_at is None:
            return Store(replace(stored, next_published_at=now), "authority_published")
        due.append(stored.next_published_at + terms.propagation_s)
        if now >= due[-1]:
            return _promote(stored, stored.next, now, terms)
    elif stored.previous is not None:
        due.append(stored.previous_until)
        if now >= due[-1]:
            return Store(replace(stored, previous=None, previous_until=0), "authority_retired")
    else:
        due.append(authority.two_thirds())
        if now >= due[-1] or (rotation and rotation != stored.rotation):
            fresh = issuing.make_authority(terms.authority_life_s, now)
            return Store(
                replace(stored, next=fresh, next_published_at=None, rotation=rotation),
                "authority_prepared",
            )
    if leaf.not_after < authority.not_after and now >= leaf.two_thirds():
        return _renew(stored, leaf, now, terms)
    return Wait(min(due))


def _fill(held: Material | None, rotation: str, now: int, terms: Terms) -> Store:
    """The Secret is empty. A replica that serves stores its own material and rotates from there, so
    that trust is not interrupted.
    """
    fresh = issuing.make_authority(terms.authority_life_s, now)
    if held is not None and certificates.read(held.authority.certificate).valid(now):
        if held.next is None and held.previous is None:
            held = replace(held, next=fresh, next_published_at=None, rotation=rotation)
        return Store(held, "secret_refilled")
    leaf = issuing.make_leaf(fresh, terms.names, terms.leaf_life_s, now)
    return Store(Material(fresh, leaf, rotation=rotation), "authority_made")


def _rescue(stored: Material, rotation: str, now: int, terms: Terms) -> Store:
    """The authority has ended, so no webhook call succeeds and nothing is left to keep. It happens
    only if all replicas were stopped for long.
    """
    if stored.next is not None and certificates.read(stored.next.certificate).valid(now):
        return _promote(stored, stored.next, now, terms)
    return _fill(None, rotation, now, terms)


def _promote(stored: Material, upcoming: Pair, now: int, terms: Terms) -> Store:
    leaf = issuing.make_leaf(upcoming, terms.names, terms.leaf_life_s, now)
    moved = Material(
        authority=upcoming,
        leaf=leaf,
        previous=stored.authority.certificate,
        previous_until=now + terms.propagation_s,
        rotation=stored.rotation,
    )
    return Store(moved, "authority_moved")


def _renew(stored: Material, leaf: Facts, now: int, terms: Terms) -> Store:
    """A new leaf by the same authority. It keeps names that only another replica's settings have,
    so that replicas of two versions do not undo each other's.
    """
    names = list(terms.names)
    if not leaf.names.issuperset(names):
        names = sorted(leaf.names | set(names))[:_MAX_NAMES]
        names = [*terms.names, *(name for name in names if name not in terms.names)]
    fresh = issuing.make_leaf(stored.authority, names, terms.leaf_life_s, now)
    return Store(replace(stored, leaf=fresh), "leaf_renewed")


_MAX_NAMES = 32
