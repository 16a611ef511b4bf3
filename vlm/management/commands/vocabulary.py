"""``vocabulary``: save the questions and words as a file, read them from one, or go back to the usual ones."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from vlm import services, vocabulary_file
from vlm.management.commands._shared import USAGE, DoorCommand, whole_file
from vlm.services.vocabulary import Removed, TagsAtStake


def read_vocabulary(path: str) -> tuple[vocabulary_file.Entry, ...]:
    """Read a vocabulary file. Raises ``CommandError`` for one that cannot be read, ``VocabularyError`` for what it says."""
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).expanduser().read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.", returncode=USAGE) from error
    return vocabulary_file.load(content)


class Command(DoorCommand):
    help = "Export the vocabulary as TOML, import it from a file, or reset it to the one that DataVisor comes with."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["export", "import", "reset"])
        parser.add_argument("file", nargs="?", default="-", help="a TOML file; “-” or nothing is stdout or stdin")
        parser.add_argument(
            "--tags",
            choices=["keep", "take"],
            default="",
            help="what becomes of the tags of words that go: kept as users' own tags, or taken away",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        action, path = options["action"], options["file"]
        removed: Removed = options["tags"]
        if action == "export":
            text = vocabulary_file.dump(services.vocabulary.entries())
            if path == "-":
                self.stdout.write(text, ending="")
                return
            with whole_file(Path(path)) as file:
                file.write(text.encode())
            self.stdout.write(f"The vocabulary is in {path}.")
            return
        try:
            if action == "reset":
                change = services.vocabulary.reset(removed=removed, user=None)
            else:
                change = services.vocabulary.replace_all(wanted=read_vocabulary(path), removed=removed, user=None)
        except TagsAtStake as error:
            listed = ", ".join(f"{word} ({count:,})" for word, count in error.counts.items())
            raise CommandError(
                f"Images are tagged with words that would go: {listed}. Nothing was changed. Add --tags keep (they become your "
                "own tags) or --tags take (they go).",
                returncode=USAGE,
            ) from error
        self.stdout.write("The vocabulary is as it was." if change is None else f"{change.text}.")
