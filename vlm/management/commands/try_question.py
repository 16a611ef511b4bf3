"""``try_question``: ask a question, saved or not, of some images, and see how its wordings agree; one can be saved."""

from argparse import ArgumentParser
from dataclasses import replace
from typing import Any

from django.core.management.base import CommandError

from vlm import services
from vlm.management.commands._shared import (
    USAGE,
    DoorCommand,
    add_filter_argument,
    find_dataset,
    positive,
    print_table,
    read_filter,
    result_console,
    stage_bar,
    to_json,
)
from vlm.management.commands.vocabulary import read_vocabulary
from vlm.runs.options import RunOptions
from vlm.vocabulary import Dimension
from vlm.vocabulary_file import Entry


class Command(DoorCommand):
    help = (
        "Ask one question of some images with all of its wordings, and print how often the answer flips, how each pair agrees, "
        "and, where labels are, accuracy and log loss of each wording and of their mean. Nothing is saved without --save."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument("--dimension", metavar="D", help="a question of the vocabulary, or of --vocabulary")
        parser.add_argument("--vocabulary", metavar="FILE", help="take the question from this TOML file instead")
        parser.add_argument("--question", metavar="TEXT", help="ask this question instead of the dimension's own")
        parser.add_argument(
            "--wording", action="append", default=[], metavar="TEXT", help="a further wording; may be repeated"
        )
        parser.add_argument("--orders", action="store_true", help="its words in other orders, too")
        add_filter_argument(parser)
        parser.add_argument("--limit", type=positive, default=20, metavar="N", help="images, spread over the filter")
        parser.add_argument("--model", default="", help="hub id or folder (default: DATAVISOR_VLM_MODEL)")
        parser.add_argument("--device", default="", help="auto, cpu, mps, cuda, cuda:1 (default: DATAVISOR_VLM_DEVICE)")
        parser.add_argument("--detail", choices=["full", "low"], help="full: all crops; low: one crop per image")
        parser.add_argument(
            "--save",
            metavar="WHICH",
            help="put the question into the vocabulary: in one wording (1, 2, …), or “mean” for all",
        )
        parser.add_argument("--no-progress", action="store_true", help="no progress bar on stderr")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = find_dataset(options["dataset"])
        dimension = self._dimension(options)
        saved = services.trials.chosen(dimension=dimension, choice=options["save"]) if options["save"] else None
        samples = services.trials.samples_of(
            dataset=dataset, filter=read_filter(options["filter"]), limit=options["limit"]
        )
        if not samples:
            raise CommandError("No image is in this filter.", returncode=USAGE)
        detail = {"detail": options["detail"]} if options["detail"] else {}
        asked = RunOptions(model=options["model"], device=options["device"], **detail)
        with stage_bar(hidden=options["no_progress"]) as report:
            tried = services.trials.ask(
                dataset=dataset, dimension=dimension, samples=samples, options=asked, report=report
            )
        found = services.trials.summary(dataset=dataset, dimension=dimension, tried=tried)
        if saved is not None:
            there = services.vocabulary.entry(name=saved.name)
            services.vocabulary.save(
                entry=Entry(saved, there is None or there.enabled), name=saved.name if there else "", user=None
            )
        if options["json"]:
            self.stdout.write(
                to_json(
                    {
                        "dataset": dataset.name,
                        "dimension": dimension.to_json(),
                        "images": [one.to_json() for one in tried],
                        "summary": found.to_json(),
                    }
                )
            )
            return
        console = result_console(self.stdout)
        rows = [
            [
                one.file_name,
                one.error or (one.said.word or "no" if one.said else ""),
                f"{one.said.probability:.2f}" if one.said else "",
                one.reason,
                ", ".join(one.stored),
            ]
            for one in tried
        ]
        print_table(
            console, dimension.question, ["image", "answer", "probability", "no tag because", "now"], rows, right=5
        )
        if found.agreement is None:
            return
        console.print()
        print_table(
            console,
            f"The answer differs between the wordings on {found.agreement.flipping.value:.0%} of the images."
            if found.agreement.flipping
            else "",
            ["wording", "same as the first", "right", "log loss"],
            [
                [
                    row["question"] or "the mean of all",
                    row["same"],
                    f"{row['right']} of {row['labels']}" if row["labels"] else "–",
                    "–" if row["log_loss"] is None else f"{row['log_loss']:.3f}",
                ]
                for row in services.trials.rated(found)
            ],
        )
        console.print()
        print_table(
            console,
            "Agreement of each pair of wordings",
            ["first", "second", "same", "kappa"],
            [
                [
                    str(first + 1),
                    str(second + 1),
                    f"{pair.same.value:.0%}" if pair.same else "–",
                    f"{pair.kappa.value:.2f} ({pair.kappa.low:.2f} to {pair.kappa.high:.2f})" if pair.kappa else "–",
                ]
                for first, second, pair in found.agreement.pairs
            ],
            right=0,
        )

    def _dimension(self, options: dict[str, Any]) -> Dimension:
        entries = read_vocabulary(options["vocabulary"]) if options["vocabulary"] else services.vocabulary.entries()
        names = [entry.dimension.name for entry in entries]
        name = options["dimension"] or (names[0] if len(names) == 1 else "")
        found = next((entry.dimension for entry in entries if entry.dimension.name == name), None)
        if found is None:
            raise CommandError(f"Name a question with --dimension. There are: {', '.join(names)}.", returncode=USAGE)
        found = replace(
            found,
            question=options["question"] or found.question,
            wordings=(*(() if options["question"] else found.wordings), *options["wording"]),
        )
        return services.trials.with_orders(found) if options["orders"] else found
