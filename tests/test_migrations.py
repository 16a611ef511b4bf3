"""Django's migrations go back and forth, lose nothing on the way, and do not change with the code."""

import ast
from pathlib import Path

import pytest
from django.core.management import call_command

from vlm.models import Dimension, Word

FOLDER = Path(__file__).resolve().parent.parent / "vlm" / "migrations"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("first", ["0001", "0002"])
def test_back_and_forth(first: str) -> None:
    Dimension.objects.filter(name="setting").update(question="Inside or outside?")
    before = (list(Dimension.objects.values("name", "question")), list(Word.objects.values("dimension__name", "text")))
    call_command("migrate", "vlm", first, verbosity=0)
    call_command("migrate", "vlm", verbosity=0)
    after = (list(Dimension.objects.values("name", "question")), list(Word.objects.values("dimension__name", "text")))
    assert after == before


@pytest.mark.parametrize("path", sorted(FOLDER.glob("0*.py")), ids=lambda path: path.stem)
def test_no_migration_imports_live_code(path: Path) -> None:
    """What it does today it must do in years, with whatever the house is then."""
    imported = {
        node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
    } | {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    # Choices that are a function are named by it, so that a new one needs no migration; rows do not depend on them.
    live = {name for name in imported if name.split(".")[0] in ("vlm", "datavisor")} - {"vlm.formats.registry"}
    assert live == set()
