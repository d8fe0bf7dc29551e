"""The files around a release agree with each other, and with the Makefile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_citation_is_of_this_version() -> None:
    (version,) = re.findall(r'^version = "([^"]+)"$', read("pyproject.toml"), re.MULTILINE)
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == version
    assert f"## {version}" in read("CHANGELOG.md")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_workflow_builds_as_the_checklist_says_and_keeps_no_password() -> None:
    workflow: dict[Any, Any] = yaml.safe_load(read(".github/workflows/release.yml"))
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads "on" as true
    assert any(step.get("run") == "make dist" for step in workflow["jobs"]["build"]["steps"])
    assert workflow["jobs"]["publish"]["needs"] == "build"
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in read(".github/workflows/release.yml")
    assert "workflow `release.yml`, environment `pypi`" in " ".join(read("docs/release.md").split())


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", read("Makefile"), re.MULTILINE))
    pages = ["docs/release.md", "docs/upstream.md", ".github/PULL_REQUEST_TEMPLATE.md", ".github/workflows/release.yml"]
    named = {name for page in pages for name in re.findall(r"(?:`|run: )make ([a-z0-9-]+)", read(page))}
    assert {"dist", "upstream", "check", "test"} <= named <= targets


@pytest.mark.parametrize("path", [path for path in TEMPLATES if path.stem != "config"], ids=lambda path: path.stem)
def test_a_template_is_a_form(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) > 0
    assert all(field["type"] in ("input", "textarea") and field["attributes"]["label"] for field in form["body"])
