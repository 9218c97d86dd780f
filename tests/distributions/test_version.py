"""The version stands in one place; what must be literal is compared with it."""

from __future__ import annotations

import re

import capsign_adapter
import capsign_agent
import capsign_cli
import capsign_injector
import capsign_wire
import pytest
import yaml
from support import wheels as built
from support.wheels import ROOT


@pytest.mark.parametrize("package", [capsign_adapter, capsign_agent, capsign_cli, capsign_injector])
def test_every_package_has_it_from_there(package):
    assert package.__version__ is capsign_wire.__version__
    assert '__version__ = "' not in (ROOT / package.__path__[0] / "__init__.py").read_text()


@pytest.mark.parametrize("name", sorted(built.folders()))
def test_no_project_file_has_one_of_its_own(name):
    project = built.project(built.folders()[name])
    assert project["dynamic"] == ["version"]
    assert not [one for one in project["dependencies"] if one.startswith("capsign")]


def test_the_chart_installs_the_images_of_this_version():
    chart = yaml.safe_load((ROOT / "k8s/chart/Chart.yaml").read_text())
    assert str(chart["appVersion"]) == capsign_wire.__version__


def test_the_changelog_has_a_heading_for_it():
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1:2] in ([], [capsign_wire.__version__])
