"""Who can read a secret file: its mode is not all of it where there is an access control list."""

from __future__ import annotations

import os
import struct
import subprocess
import sys

import pytest
from capsign_wire import settings
from capsign_wire.file_access import ACL, strangers

US, GROUP, NOBODY = 1000, 2000, 65_534
OWNER_, USER, GROUP_, NAMED, MASK, OTHERS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def credential(user, *more, group=0, mask=4):
    """As systemd gives it to a service."""
    base = [
        (OWNER_, 4, 0xFFFFFFFF),
        (USER, 4, user),
        (GROUP_, group, 0xFFFFFFFF),
        *more,
        (MASK, mask, 0xFFFFFFFF),
        (OTHERS, 0, 0xFFFFFFFF),
    ]
    return acl(*sorted(base))


CASES = [
    (0o600, b"", set(), []),
    (0o440, b"", set(), ["group 0"]),
    (0o440, b"", {0}, []),
    (0o460, b"", {0}, ["group 0"]),
    (0o604, b"", {0}, ["others"]),
    (0o440, credential(US), set(), []),
    (0o440, credential(0), set(), []),
    (0o440, credential(US + 1), set(), ["user 1001"]),
    (0o440, credential(US, (USER, 4, 7)), set(), ["user 7"]),
    (0o440, credential(US, (USER, 0, 7)), set(), []),
    (0o440, credential(US, group=4), set(), ["group 0"]),
    (0o440, credential(US, group=4), {0}, []),
    (0o400, credential(US, group=4, mask=0), set(), []),
    (0o440, credential(US, (NAMED, 4, GROUP)), set(), ["group 2000"]),
    (0o440, credential(US, (NAMED, 4, GROUP)), {GROUP}, []),
    (0o460, credential(US, (NAMED, 6, GROUP), mask=6), {GROUP}, ["group 2000"]),
    (0o440, acl((OWNER_, 4, 0), (GROUP_, 0, 0), (MASK, 4, 0), (OTHERS, 4, 0)), set(), ["others"]),
]


@pytest.mark.parametrize(("mode", "entries", "groups", "told"), CASES)
def test_who_beside_us(mode, entries, groups, told):
    assert list(strangers(mode, entries, uid=US, allowed_groups=frozenset(groups), gid=0)) == told


@pytest.mark.parametrize("entries", [b"\x03\0\0\0", b"\x02\0\0", credential(US)[:-1]])
def test_a_list_that_cannot_be_read_is_not_taken_for_none(entries):
    with pytest.raises(ValueError, match="unknown kind"):
        list(strangers(0o440, entries, uid=US, allowed_groups=frozenset(), gid=0))


READ = """
import pathlib, sys
from capsign_wire import settings
print(settings.read_secret(pathlib.Path(sys.argv[1])).decode(), end="")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play systemd")
@pytest.mark.parametrize(
    ("entries", "taken"),
    [(credential(NOBODY), True), (credential(NOBODY, (USER, 4, 7)), False), (None, False)],
)
def test_a_credential_of_systemds_is_a_secret(entries, taken, tmp_path):
    """LoadCredential's file is root's, and its list names the service's user: mode 0440. It was
    called open to others.
    """
    file = tmp_path / "credential"
    file.write_text("secret")
    file.chmod(0o440)
    if entries is not None:
        try:
            os.setxattr(file, ACL, entries)
        except OSError as error:
            pytest.skip(f"the file system here has no access control lists ({error.strerror})")
        assert file.stat().st_mode & 0o777 == 0o440
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o005:
            folder.chmod(folder.stat().st_mode | 0o005)
    script = "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n" + READ
    ran = subprocess.run(
        [sys.executable, "-c", script, file], capture_output=True, text=True, check=False
    )
    assert (ran.returncode == 0, ran.stdout) == (taken, "secret" if taken else ""), ran.stderr


def test_a_list_that_opens_it_is_named(tmp_path):
    file = tmp_path / "key"
    file.write_text("secret")
    file.chmod(0o600)
    try:
        os.setxattr(
            file,
            ACL,
            acl(
                (OWNER_, 6, 0xFFFFFFFF),
                (USER, 4, 4242),
                (GROUP_, 0, 0xFFFFFFFF),
                (MASK, 4, 0xFFFFFFFF),
                (OTHERS, 0, 0xFFFFFFFF),
            ),
        )
    except OSError as error:
        pytest.skip(f"the file system here has no access control lists ({error.strerror})")
    with pytest.raises(
        settings.SettingsError, match=r"user 4242, by its access control list.*setfacl -b"
    ):
        settings.read_secret(file)
