"""When an image is built again: when a name, a byte or an executable bit of its inputs differs, and
at no other time.
"""

from __future__ import annotations

import os

import pytest
from capsign_images import content


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "package" / "a.py").write_text("a")
    (tmp_path / "package" / "inner" / "b.py").write_text("b")
    return tmp_path


def digest(tree, *facts):
    return content.digest(tree, ["package"], *facts)


def test_times_and_caches_do_not_count(tree):
    before = digest(tree)
    os.utime(tree / "package" / "a.py", (0, 0))
    (tree / "package" / "__pycache__").mkdir()
    (tree / "package" / "__pycache__" / "a.pyc").write_text("x")
    assert digest(tree) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda package: (package / "a.py").write_text("A"),
        lambda package: (package / "a.py").rename(package / "c.py"),
        lambda package: (package / "a.py").rename(package / "inner" / "a.py"),
        lambda package: (package / "a.py").chmod(0o755),
        lambda package: (package / "a.py").unlink(),
        lambda package: (package / "new.py").touch(),
    ],
    ids=["bytes", "name", "folder", "executable", "gone", "new"],
)
def test_content_counts(tree, change):
    before = digest(tree)
    change(tree / "package")
    assert digest(tree) != before


def test_facts_count_and_do_not_run_together(tree):
    assert (
        len({digest(tree), digest(tree, "ab"), digest(tree, "a", "b"), digest(tree, "b", "a")}) == 4
    )


def test_a_copy_has_the_same_modes_under_any_umask(tree):
    before = os.umask(0o077)
    try:
        content.copy_tree(tree / "package", tree / "copy" / "package")
    finally:
        os.umask(before)
    copied = tree / "copy" / "package"
    assert {path.stat().st_mode & 0o777 for path in copied.rglob("*") if path.is_file()} == {0o644}
    assert {path.stat().st_mode & 0o777 for path in (copied, copied / "inner", tree / "copy")} == {
        0o755
    }
