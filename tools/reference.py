"""Write ``docs/reference.md`` from the code: every command with its options, and every address. ``make reference``."""

import inspect
import os
import re
import sys
from argparse import SUPPRESS, Action
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
TARGET = ROOT / "docs" / "reference.md"
# What Django gives to every command, and the log-in that is Django's own.
OF_DJANGO = {
    "help",
    "version",
    "verbosity",
    "settings",
    "pythonpath",
    "traceback",
    "no_color",
    "force_color",
    "skip_checks",
}
OPENING = """# Reference

Made from the code by `make reference`; a test compares the two. Settings, formats and filters are explained in the
[README](../README.md).

"""


def text() -> str:
    """Return what the file should say."""
    return OPENING + "## Commands\n\n" + "\n".join(commands()) + "\n## Addresses\n\n" + "\n".join(addresses()) + "\n"


def commands() -> Iterator[str]:
    """Describe each command of DataVisor's own: what it does, and what it takes."""
    from django.core.management import load_command_class

    folder = ROOT / "vlm" / "management" / "commands"
    for name in sorted(path.stem for path in folder.glob("[a-z]*.py")):
        parser = load_command_class("vlm", name).create_parser("manage.py", name)
        yield f"### `{name}`\n\n{parser.description}\n"
        own = [action for action in parser._actions if action.dest not in OF_DJANGO and action.help != SUPPRESS]
        if own:
            yield "| option | meaning |\n| --- | --- |"
            yield from (f"| {written(action)} | {cell(meaning(action))} |" for action in own)
            yield ""


def written(action: Action) -> str:
    """Return an option as it is typed."""
    names = action.option_strings or [action.metavar if isinstance(action.metavar, str) else action.dest.upper()]
    return ", ".join(f"`{name}`" for name in names)


def meaning(action: Action) -> str:
    """Return an option's help, with what it may be."""
    choices = ", ".join(f"`{choice}`" for choice in action.choices or ())
    values = {"default": action.default, "prog": "manage.py", "choices": choices, "metavar": action.metavar}
    said = re.sub(r"%\((\w+)\)s", lambda found: str(values.get(found[1], found[0])), action.help or "").replace(
        "%%", "%"
    )
    return f"{said} ({choices})" if choices else said


def addresses() -> Iterator[str]:
    """Describe each address of the page: its name, and the first sentence of its view."""
    from django.urls import URLPattern, URLResolver, get_resolver

    def walk(patterns: list[URLPattern | URLResolver], before: str) -> Iterator[tuple[str, URLPattern]]:
        for pattern in patterns:
            path = before + str(pattern.pattern)
            if isinstance(pattern, URLPattern):
                yield path, pattern
            elif not path.startswith("/admin/"):
                yield from walk(pattern.url_patterns, path)

    from vlm.routing import websocket_urlpatterns

    yield "| address | what it is |\n| --- | --- |"
    for path, pattern in walk(get_resolver().url_patterns, "/"):
        yield f"| `{path}` | {cell(sentence(pattern))} |"
    yield "| `/admin/` | Django's admin: users, rights, vocabulary, runs |"
    for pattern in websocket_urlpatterns:
        yield f"| `/{str(pattern.pattern).lstrip('/')}` | websocket: fragments of the page as a run goes on |"


def sentence(pattern: "object") -> str:
    """Return what a view says of itself in one line, or its name in words."""
    view = getattr(pattern, "callback", None)
    view = getattr(view, "view_class", view)
    own = inspect.getmodule(view)
    documented = inspect.getdoc(view) if own is not None and own.__name__.startswith("vlm.") else None
    first = documented.splitlines()[0] if documented else ""
    return first or str(getattr(pattern, "name", "")).replace("_", " ")


def cell(said: str) -> str:
    """Return a text as it can stand in a table."""
    return " ".join(said.split()).replace("``", "`").replace("|", "\\|")


def main() -> None:
    """Write the file."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    TARGET.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
