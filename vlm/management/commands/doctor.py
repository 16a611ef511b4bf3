"""``doctor``: say whether the workers of a run would see what they need."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings

from vlm import services
from vlm.figures import counted
from vlm.management.commands._shared import (
    SOME_FAILED,
    DoorCommand,
    find_dataset,
    print_table,
    result_console,
    to_json,
)


class Command(DoorCommand):
    help = (
        "Ask each worker whether it sees the images of a data set, the model and a GPU, without loading anything. Exit codes: 0 a run "
        "would work, 1 it would not with some of them, 3 there are no workers."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", nargs="?", help="name or number of the data set whose images are to be seen")
        parser.add_argument(
            "--workers",
            metavar="W",
            help="here, local:N, auto or ray://HOST:PORT, as for autotag (default: DATAVISOR_WORKERS)",
        )
        parser.add_argument("--model", default="", help="hub id or folder (default: DATAVISOR_VLM_MODEL)")
        parser.add_argument("--device", default="", help="auto, cpu, mps, cuda (default: DATAVISOR_VLM_DEVICE)")
        parser.add_argument("--json", action="store_true", help="a JSON list on stdout instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = find_dataset(options["dataset"]) if options["dataset"] else None
        where = settings.WORKERS if options["workers"] is None else options["workers"]
        seen = services.workers.look(workers=where, dataset=dataset, model=options["model"], device=options["device"])
        if options["json"]:
            self.stdout.write(to_json([one.to_json() for one in seen]))
        else:
            console = result_console(self.stdout)
            columns = ["worker", "machine", "DataVisor", "images", "model", "GPU", "cores"]
            print_table(console, "", columns, [row(one) for one in seen], right=6)
            for one in seen:
                for problem in one.problems:
                    console.print(f"Worker {one.name}: {problem}")
            if not any(one.problems for one in seen):
                console.print(f"{counted(len(seen), 'worker')} would do.")
        if any(one.problems for one in seen):
            sys.exit(SOME_FAILED)


def row(one: services.workers.Seen) -> list[str]:
    """Return what a worker sees, in the columns of the table."""
    images = {True: "seen", False: "not seen", None: "–"}[one.images]
    model = "there" if one.model else "not there"
    if one.to_fetch:
        model = f"{one.to_fetch / 1e9:.2f} GB to download"
    return [one.name, one.node or "–", one.version or "–", images, model, one.gpu or "none", str(one.cores or "–")]
