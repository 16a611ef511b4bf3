"""``runs``: the history of tagging runs, or one of them."""

from argparse import ArgumentParser
from typing import Any

from django.utils.timezone import localtime
from rich.console import Console

from vlm import services
from vlm.figures import pace
from vlm.management.commands._shared import (
    DoorCommand,
    find_dataset,
    find_run,
    print_table,
    result_console,
    to_json,
)
from vlm.models import TaggingRun

LISTED = 200


class Command(DoorCommand):
    help = "List tagging runs, or show one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dataset", metavar="D", help="only runs of this data set: its name or number")
        parser.add_argument("--run", type=int, metavar="N", help="show this one, with its words and failed images")
        parser.add_argument("--json", action="store_true", help="JSON on stdout instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        console = result_console(self.stdout)
        if options["run"]:
            self._show(find_run(options["run"]), console, options["json"])
            return
        dataset = find_dataset(options["dataset"]) if options["dataset"] else None
        states = [(run, services.runs.state(run=run)) for run in services.runs.history(dataset=dataset, limit=LISTED)]
        if options["json"]:
            self.stdout.write(to_json([state.to_json() for _, state in states]))
            return
        if not states:
            self.stdout.write("There is no run yet. autotag starts one.")
            return
        rows = [
            [
                str(run.pk),
                run.dataset.name,
                state.status_label + (" (reverted)" if run.reverted else ""),
                f"{localtime(run.created):%Y-%m-%d %H:%M}",
                f"{state.processed:,}/{state.total:,}",
                f"{state.tagged:,}",
                f"{state.discarded:,}",
                f"{state.failed:,}",
                pace(state.rate),
            ]
            for run, state in states
        ]
        columns = ["run", "data set", "status", "created", "done", "tagged", "discarded", "failed", "pace"]
        print_table(console, "", columns, rows, right=4)

    def _show(self, run: TaggingRun, console: Console, as_json: bool) -> None:
        state, words = services.runs.state(run=run), services.runs.words(run=run)
        failures = services.runs.failures(run=run)
        if as_json:
            found = {
                **state.to_json(),
                "words": [[w.dimension, w.word, w.accepted, w.discarded] for w in words],
                "failures": [[f.sample_id, f.file_name, f.reason] for f in failures],
                "priors": run.priors,
            }
            self.stdout.write(to_json(found))
            return
        console.print(
            f"Run {run.pk} of {run.dataset.name}: {state.status_label}. {state.processed:,} of {state.total:,} images, "
            f"{state.tagged:,} tagged, {state.discarded:,} answers discarded, {state.failed:,} failed"
            f"{f', {state.shared:,} with a shared answer' if state.one_per_group else ''}."
        )
        if state.error:
            console.print(state.error)
        rows = [[w.dimension, w.word or "(other text)", f"{w.accepted:,}", f"{w.discarded:,}"] for w in words]
        print_table(console, "", ["dimension", "word", "accepted", "discarded"], rows, right=2)
        for line in services.runs.blind_lines(run=run):
            console.print(line)
        for failure in failures:
            console.print(f"failed: {failure.file_name}: {failure.reason}")
