"""What stands around the code: citation, workflows, forms, the map for language models, the reference."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import edgewise as ew

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_there_is_one_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == PROJECT["version"] == ew.__version__


def test_the_citation_has_what_its_format_asks_for():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert {"title", "message", "authors", "license"} <= set(cited)
    assert cited["license"] == PROJECT["license"]
    for one in [cited, *cited["references"]]:
        for author in one["authors"]:
            assert set(author) in ({"name"}, {"family-names", "given-names"})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_test_every_python_and_the_oldest_torch_that_are_promised(path):
    jobs = yaml.safe_load(path.read_text())["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    promised = {one.rpartition(" ")[2] for one in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", one)}
    assert set(matrix["python"]) >= promised | {"3.11"}
    (least,) = (re.match(r"torch>=([\d.]+)", one) for one in PROJECT["dependencies"] if one.startswith("torch"))
    assert least is not None
    assert f"{least[1]}.0" in {one["torch"] for one in matrix["include"]}
    for job in jobs.values():
        assert "runs-on" in job
        assert all(set(step) & {"uses", "run"} for step in job["steps"])
        assert set(job.get("needs", "").split()) <= set(jobs)


def test_only_what_was_built_and_tested_is_published_and_without_a_token():
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    jobs = release["jobs"]
    assert (jobs["test"]["needs"], jobs["publish"]["needs"]) == ("build", "test")
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert release["permissions"] == {"contents": "read"}
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text()


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_forms_are_forms(path):
    form = yaml.safe_load(path.read_text())
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form)
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids))
    assert all(part["attributes"]["label"] for part in form["body"])


@pytest.mark.parametrize("name", ["llms.txt", "AGENTS.md", "CONTRIBUTING.md"])
def test_what_they_link_to_is_there(name):
    text = (ROOT / name).read_text()
    targets = [one for one in re.findall(r"\]\(([^)]+)\)", text) if not one.startswith("http")]
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_the_map_leads_to_every_page_of_the_docs():
    text = (ROOT / "llms.txt").read_text()
    assert re.match(r"# edgewise\n\n> ", text), "its form: a title, then a summary as a quotation"
    for page in [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.ipynb")]:
        assert f"(docs/{page.name})" in text, page.name


def test_the_readme_is_three_screens_long():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_targets_that_are_named_are_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("AGENTS.md", "CONTRIBUTING.md", "README.md"):
        named = set(re.findall(r"(?:`|^    )make ([a-z-]+)", (ROOT / name).read_text(), re.MULTILINE))
        assert named <= targets, name


def test_the_reference_has_every_public_name():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    named = set(re.findall(r"^::: edgewise\.(\S+)$", pages, re.MULTILINE))
    assert set(ew.__all__) <= named
    for name in named - set(ew.__all__):
        module, _, attribute = name.rpartition(".")
        assert attribute in __import__(f"edgewise.{module}", fromlist=[attribute]).__all__, name


def test_every_page_of_the_docs_has_a_place_in_the_site():
    nav = re.findall(r": (\S+\.md)$|- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    placed = {one or other for one, other in nav}
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= placed
    assert placed - pages == {"index.md", "changelog.md", "tutorial.md"}, "made by scripts/docs_site.py"
