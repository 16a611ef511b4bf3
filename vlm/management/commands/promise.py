"""``promise``: tag by the threshold from which on so much is right, of a dimension or word by word; without the model."""

from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from vlm import services
from vlm.management.commands._shared import DoorCommand, find_dataset, print_table, result_console, share, to_json
from vlm.services.accuracy import TARGET
from vlm.statistics.thresholds import Kept


class Command(DoorCommand):
    help = (
        "Find the threshold from which on at least a share of one dimension's tags is right, with 95 % confidence, and tell what "
        "tagging by it would change; with --apply, do it. The answers are stored, so the model is not asked again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument("--dimension", required=True, metavar="D")
        parser.add_argument(
            "--target",
            type=share,
            default=TARGET,
            metavar="P",
            help="share of the tags that is to be right (default 0.95)",
        )
        parser.add_argument(
            "--by-word", action="store_true", help="a threshold for each word; each promise holds by itself"
        )
        parser.add_argument(
            "--word", action="append", default=[], metavar="W", help="of this word alone; may be repeated"
        )
        parser.add_argument(
            "--drop", action="store_true", help="words that cannot keep the promise are tagged no more; else they stay"
        )
        parser.add_argument("--apply", action="store_true", help="change the tags; else only tell what would change")
        parser.add_argument("--json", action="store_true", help="JSON on stdout instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset, dimension = find_dataset(options["dataset"]), options["dimension"]
        found = services.accuracy.evaluate(dataset=dataset, dimension=dimension, target=options["target"])
        by_word = bool(options["by_word"] or options["word"] or options["drop"])
        thresholds = services.promises.thresholds_of(
            found, by_word=by_word, words=tuple(options["word"]), drop=options["drop"]
        )
        act = services.promises.apply if options["apply"] else services.promises.preview
        change = act(dataset=dataset, thresholds=thresholds)
        if options["json"]:
            applied = {"applied": options["apply"], "thresholds": thresholds.to_json()}
            self.stdout.write(to_json({**asdict(change), **applied}))
            return
        console = result_console(self.stdout)
        rows = []
        for word in change.words:
            own = found.word_promises.get(word.word) if by_word else found.promise
            kept = own if isinstance(own, Kept) else None
            rows.append(
                [
                    word.word or "no",
                    f"{kept.threshold:.4f}" if kept else "never",
                    f"{kept.accuracy.value:.1%}" if kept else "",
                    f"{word.before:,}",
                    f"{word.after:,}",
                ]
            )
        print_table(console, "", ["word", "from", "right", "accepted", "then"], rows, right=1)
        console.print(
            f"{change.changed:,} images {'changed' if options['apply'] else 'would change; --apply changes them'}."
        )
