"""No number that is typed ends in a traceback: each option takes what the wire, or a store, can
hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import pytest
from capsign_cli import __main__ as cli
from capsign_cli import failures, numbers, output


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


def commands(one: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command below this one, by what is typed."""
    if isinstance(one, click.Group):
        context = click.Context(one)
        for name in one.list_commands(context):
            found = one.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))
    else:
        yield " ".join(path), one


PARAMETERS = [
    pytest.param(each, id=f"{path} {each.name}")
    for path, one in commands(cli.capsign)
    for each in one.params
]


@pytest.mark.parametrize("each", PARAMETERS)
def test_every_number_has_bounds_that_can_be_sent(each):
    assert each.type is not click.INT, "say from where to where"
    assert each.type is not click.FLOAT
    if isinstance(each.type, click.IntRange):
        assert each.type.min is not None
        assert each.type.max is not None
        assert each.type.max <= numbers.MOST_64
    if isinstance(each.type, click.FloatRange):
        assert isinstance(each.type, numbers.Seconds), "a plain one takes nan"


@pytest.mark.parametrize(
    "arguments",
    [
        ["sign", "--timeout", "nan", "--algorithm", "ES256", "/dev/null"],
        ["audit", "query", "/dev/null", "--limit", "99999999999999999999"],
        [
            "rollout",
            "report",
            "a/b",
            "--version",
            "1",
            "--algorithm",
            "ES256",
            "--failed",
            "2" * 11,
        ],
        ["rollout", "get", "a/b", "--number", "-1"],
        ["rollout", "undo", "a/b", "--to", "0"],
        ["rollout", "start", "a/b/3"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_number_that_cannot_be_is_wrong_use(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "-o", "json"])
    told = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (ended.value.code, told["error"]["reason"]) == (failures.USAGE, "USAGE")
