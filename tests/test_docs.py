"""What the code has is in the documents, and what the documents speak of is in the code."""

import re
from argparse import Action
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class
from django.urls import Resolver404, resolve

from tests.children import ROOT
from tools import reference
from vlm.formats import EXPORTS, IMPORTS

README = (ROOT / "README.md").read_text()
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(ROOT.glob("docs/*.md"))}
DOCUMENTS |= {
    name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
}
EVERYTHING = "\n".join(DOCUMENTS.values())
SETTING = r"\b(?:DATAVISOR_[A-Z0-9_]+|DATABASE_URL|HF_HOME|HF_HUB_OFFLINE)\b"
OF_OTHERS = {"HF_HOME", "HF_HUB_OFFLINE"}  # the hub's library reads them
OF_TESTS = {"DATAVISOR_CHROMIUM"}


def settings_in(text: str) -> set[str]:
    """Return the settings that a text names; with ``_FILE`` behind it, it is the same setting read from a file."""
    return {name.removesuffix("_FILE") for name in re.findall(SETTING, text)}


def section(title: str) -> str:
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_column(table: str) -> set[str]:
    return set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE))


def commands() -> set[str]:
    return {name for name, app in get_commands().items() if app == "vlm"}


def options(command: str) -> set[str]:
    actions: list[Action] = load_command_class("vlm", command).create_parser("manage.py", command)._actions
    return {name for action in actions for name in action.option_strings}


def test_every_setting_is_explained_and_no_other() -> None:
    source = "\n".join(path.read_text() for room in ("datavisor", "vlm") for path in (ROOT / room).rglob("*.py"))
    there = settings_in(source) | OF_OTHERS
    explained = first_column(section("Settings")) | {
        name for text in DOCUMENTS.values() for name in re.findall(rf"^\| `({SETTING})`", text, re.MULTILINE)
    }
    assert there - explained == {"DATAVISOR_COLLECTING"}  # a step of deploying, not of running
    assert settings_in(EVERYTHING) - there - OF_TESTS == set()


def test_the_reference_is_up_to_date() -> None:
    """Commands, their options and the addresses."""
    assert DOCUMENTS["docs/reference.md"] == reference.text(), "Run `make reference`."


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_commands_in_examples_exist_with_their_options(name: str) -> None:
    lines = re.findall(r"(?:manage\.py|datavisor) ([a-z_]+)((?: [^\n`|]*)?)", DOCUMENTS[name])
    known = commands() | {"migrate", "createsuperuser", "changepassword", "collectstatic", "makemigrations", "check"}
    known |= {"dumpdata", "loaddata", "shell"}
    for command, rest in lines:
        if command in commands():
            asked = set(re.findall(r"(?<!\S)(--[a-z-]+)", rest.split("#")[0]))
            assert asked <= options(command), (command, rest)
        else:
            assert command in known, command


def test_every_command_is_named_in_the_readme() -> None:
    assert {name for name in commands() if not re.search(rf"\b{name}\b", README)} == set()


def test_every_format_is_explained_and_no_other() -> None:
    assert first_column(section("Importing")) == set(IMPORTS)
    assert first_column(section("Exporting")) == set(EXPORTS)


def test_addresses_in_examples_exist() -> None:
    paths = set(re.findall(r"(?:\$base|http://127\.0\.0\.1:8000)(/[\w/-]*)", EVERYTHING))
    assert len(paths) > 5
    for path in paths:
        try:
            resolve(path)
        except Resolver404:
            pytest.fail(f"{path} leads nowhere")


def test_links_lead_to_files_that_are_there() -> None:
    for name, text in DOCUMENTS.items():
        folder = (ROOT / name).parent
        for target in re.findall(r"(?:\]\(|src=\"|srcset=\")([^)#\" ]+)", text):
            if "://" not in target:
                assert Path(folder / target).exists(), f"{name} links to {target}"


def test_what_is_listed_as_slow_is_there() -> None:
    listed = [line.partition("::") for line in (ROOT / "tests/slow.txt").read_text().splitlines()]
    assert [(path, name) for path, _, name in listed if f"def {name}(" not in (ROOT / path).read_text()] == []
