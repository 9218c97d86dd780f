"""Decides who can access a file, from its mode and its access control list. Pure.

If a file has a list, the group bits of its mode are the mask of the list and not the rights of the
group: systemd's LoadCredential gives a service its key as root's file of mode 0440, with a list
that names only the service's user.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

ACL = "system.posix_acl_access"
"""The extended attribute that holds the list, acl(5)."""

_OWNER, _USER, _GROUP, _NAMED_GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_READ, _WRITE = 4, 2


def strangers(
    mode: int, acl: bytes, *, uid: int, allowed_groups: frozenset[int], gid: int
) -> Iterator[str]:
    """Returns who may access a file, other than its owner, root, the user `uid`, and readers in
    `allowed_groups`.

    `mode` and `gid` are the file's; `acl` is its list as the kernel gives it, empty for none.
    Raises ValueError for a list that cannot be read.
    """
    if not acl:
        entries = [(_GROUP, mode >> 3 & 7, gid), (_OTHERS, mode & 7, 0)]
        mask = 7
    else:
        if len(acl) % 8 != 4 or acl[:4] != b"\x02\0\0\0":
            raise ValueError("an access control list of an unknown kind")
        entries = [struct.unpack_from("<HHI", acl, at) for at in range(4, len(acl), 8)]
        mask = next((permission for tag, permission, _ in entries if tag == _MASK), 7)
    for tag, permission, who in entries:
        rights = permission if tag == _OTHERS else permission & mask
        if not rights or tag in {_OWNER, _MASK}:
            continue
        if tag == _USER:
            if who not in {0, uid}:
                yield f"user {who}"
        elif tag in {_GROUP, _NAMED_GROUP}:
            group = gid if tag == _GROUP else who
            if group not in allowed_groups or rights & ~_READ:
                yield f"group {group}"
        else:
            yield "others"
