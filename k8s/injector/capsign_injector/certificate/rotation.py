"""When the injector's own authority and serving certificate move. Pure: what is stored and
published in, the next step out.

The rule behind every step: an API server may trust any set of authorities that was published within
the last `propagation_s` seconds, and a replica may serve any leaf that was stored within them. So
an authority is published for that long before a leaf of its own is stored, and stays published for
that long after another's leaf was. `docs/decisions/0014` has the argument.

Times are seconds since 1970 by the API server's clock: it is the API servers that verify.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from capsign_injector.certificate import certificates, issuing
from capsign_injector.certificate.certificates import Facts, Pair


@dataclass(frozen=True, slots=True)
class Terms:
    """What the settings ask for; see `server_settings.Server`."""

    names: tuple[str, ...]
    authority_life_s: int
    leaf_life_s: int
    propagation_s: int
    patience_s: int
    """How long a replica that serves nothing leaves an emptied Secret to those that serve."""


@dataclass(frozen=True, slots=True)
class Material:
    """All that the Secret holds. There is never both a next authority and a previous one."""

    authority: Pair
    """The authority of the leaf."""
    leaf: Pair
    next: Pair | None = None
    """The authority that will take over."""
    next_published_at: int | None = None
    """Since when, without a break, the next authority has been seen in the webhook
    configuration.
    """
    previous: bytes | None = None
    """Certificate of the authority that signed before. Its key is gone."""
    previous_until: int = 0
    """From when on the previous authority need not be trusted."""
    rotation: str = ""
    """The last rotation that somebody asked for and that was taken up."""

    def bundle(self) -> bytes:
        """What must be published: PEM of every authority, that of the leaf first."""
        return b"".join(
            (
                self.authority.certificate,
                self.next.certificate if self.next else b"",
                self.previous or b"",
            )
        )


@dataclass(frozen=True, slots=True)
class Store:
    """Write this into the Secret, if nobody else wrote it meanwhile. `why` names the step, for the
    log.
    """

    material: Material
    why: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Put exactly this into the webhook configuration, if nobody else changed it meanwhile."""

    bundle: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`."""

    until: int


Step = Store | Publish | Wait


@dataclass(frozen=True, slots=True)
class View:
    """What one replica sees. `published` was read before `stored`: who is behind then unpublishes
    nothing that another stored.
    """

    stored: Material | None
    """What the Secret holds; None: it is empty."""
    held: Material | None
    """What this replica serves with; None: nothing yet."""
    published: frozenset[bytes]
    """DER of the authorities that every webhook of the configuration trusts."""
    now: int
    rotation: str = ""
    """What an operator asks for."""
    empty_since: int = 0
    """When this replica first saw the Secret empty, if it is."""


def next_step(view: View, terms: Terms) -> Step:
    """What to do next."""
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
    """Until when every API server takes the leaf, if this replica hears nothing more from the
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
    """All is well and published: whatever time has made due."""
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
    """The Secret is empty. A replica that serves puts its own back and rotates from there: nobody's
    trust breaks.
    """
    fresh = issuing.make_authority(terms.authority_life_s, now)
    if held is not None and certificates.read(held.authority.certificate).valid(now):
        if held.next is None and held.previous is None:
            held = replace(held, next=fresh, next_published_at=None, rotation=rotation)
        return Store(held, "secret_refilled")
    leaf = issuing.make_leaf(fresh, terms.names, terms.leaf_life_s, now)
    return Store(Material(fresh, leaf, rotation=rotation), "authority_made")


def _rescue(stored: Material, rotation: str, now: int, terms: Terms) -> Store:
    """The authority has ended, so nothing works: no overlap can be kept. Only a long stop of all
    replicas leads here.
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
    """A new leaf by the same authority. Names that only another replica's settings know are kept:
    two versions do not quarrel.
    """
    names = list(terms.names)
    if not leaf.names.issuperset(names):
        names = sorted(leaf.names | set(names))[:_MAX_NAMES]
        names = [*terms.names, *(name for name in names if name not in terms.names)]
    fresh = issuing.make_leaf(stored.authority, names, terms.leaf_life_s, now)
    return Store(replace(stored, leaf=fresh), "leaf_renewed")


_MAX_NAMES = 32
