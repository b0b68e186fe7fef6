"""The project's habits stay in step: public CI, releases, changelog, citation, pre-commit, and how the prose reads."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
import prose  # noqa: E402


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def version() -> str:
    match = re.search(r'^version = "(.*)"$', read("pyproject.toml"), re.MULTILINE)
    assert match is not None
    return match[1]


def test_the_public_ci_runs_what_ci_run_runs() -> None:
    workflow = read(".github/workflows/ci.yml")
    assert "- run: .ci/run" in workflow
    listed = re.search(r"^ +python: \[(.*)\]$", workflow, re.MULTILINE)
    assert listed is not None
    pythons = re.findall(r'"([\d.]+)"', listed[1])
    assert pythons == ["3.10", "3.11", "3.12", "3.13"]
    assert f'requires-python = ">={pythons[0]}"' in read("pyproject.toml")
    environments = set(re.findall(r"tox -e ([\w,]+)", workflow))
    assert all(f"[testenv:{name}]" in read("tox.ini") for name in environments)


def test_dependabot_looks_at_folders_that_exist() -> None:
    listed = re.search(r"directories: \[(.*)\]", read(".github/dependabot.yml"))
    assert listed is not None
    for folder in re.findall(r'"/([^"]*)"', listed[1]):
        assert folder == "" or list(REPOSITORY.glob(f"{folder}/pyproject.toml"))


def test_pre_commit_has_the_linters_of_tox() -> None:
    hooks = read(".pre-commit-config.yaml")
    pinned = set(re.findall(r"ruff~=[\d.]+", hooks))
    assert pinned == set(re.findall(r"ruff~=[\d.]+", read("tox.ini")))
    lint = read("tox.ini").partition("[testenv:lint]")[2].partition("[testenv:")[0]
    for command in ("ruff check", "ruff format", "tools/prose.py --check"):
        assert command in lint
        assert command in hooks


def test_the_changelog_starts_with_unreleased_and_has_dates() -> None:
    headings = re.findall(r"^## (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    released = [re.fullmatch(r"(\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)", heading) for heading in headings[1:]]
    assert all(released)
    assert released[0] is not None
    assert released[0][1] == version()
    assert all(date.fromisoformat(match[2]) for match in released if match)


def test_the_citation_has_the_version() -> None:
    assert f"\nversion: {version()}\n" in read("CITATION.cff")


def test_most_docstrings_start_with_a_verb() -> None:
    files = [file for file in prose.sources(prose.own(tests=False), (".py",)) if "tests" not in file.parts]
    texts = [text for file in files for _, _, text in prose.docstrings(file)]
    assert len(texts) > 1500
    assert sum(map(prose.starts_with_verb, texts)) > 0.9 * len(texts)


def test_phrases_are_found_across_lines(tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text(
        '"""Tells what\n    is there.\n\nFresh."""\n'
        'raise ValueError(\n    "it is "\n    f"no file"\n)\n'
        "# made\n# anew\n"
    )
    assert [(line, name) for line, name, _ in prose.phrases(page)] == [
        (1, "what is"),
        (6, "is no X"),
        (10, "anew"),
    ]
    assert (
        subprocess.run([sys.executable, "tools/prose.py", "--check", str(page)], cwd=REPOSITORY).returncode
        == 1
    )


def test_verbs_and_nouns_are_told_apart() -> None:
    assert prose.starts_with_verb("Return the names.")
    assert prose.starts_with_verb("Name the owner of a lock.")
    assert prose.starts_with_verb("Copies ``source`` to the device.")
    assert not prose.starts_with_verb("Names of the tensors.")
    assert not prose.starts_with_verb("The tensors of a file.")
    assert not prose.starts_with_verb("Whether the file exists.")
