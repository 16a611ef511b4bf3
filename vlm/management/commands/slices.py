"""``slices``: freeze the samples of a filter under a name, list the frozen slices, write a manifest, remove one."""

import shutil
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.utils.timezone import localtime

from vlm import services
from vlm.management.commands._shared import (
    USAGE,
    DoorCommand,
    add_filter_argument,
    find_dataset,
    print_table,
    read_filter,
    result_console,
    to_json,
    to_stdout,
    whole_file,
)
from vlm.models import Dataset, FrozenSlice


class Command(DoorCommand):
    help = (
        "List the frozen slices of a data set; freeze the samples that a filter has now; write a slice's manifest as JSON; or "
        "remove a slice. The filter slice=NUMBER shows one."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        action = parser.add_mutually_exclusive_group()
        action.add_argument("--freeze", metavar="NAME", help="freeze the samples of --filter under this name")
        action.add_argument("--manifest", metavar="SLICE", help="write the manifest of this slice (name or number)")
        action.add_argument("--remove", metavar="SLICE", help="forget this slice (name or number); its images stay")
        add_filter_argument(parser)
        parser.add_argument("--output", default="-", metavar="FILE", help="of the manifest; “-” (default) is stdout")
        parser.add_argument("--json", action="store_true", help="JSON on stdout instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = find_dataset(options["dataset"])
        if options["freeze"] is not None:
            chosen = read_filter(options["filter"])
            frozen = services.slices.freeze(dataset=dataset, name=options["freeze"], filter=chosen, user=None)
            if options["json"]:
                self.stdout.write(to_json(services.slices.as_json(frozen=frozen)))
            else:
                self.stdout.write(f"Slice {frozen.pk} “{frozen.name}” holds {frozen.samples:,} images.")
        elif options["manifest"] is not None:
            self._manifest(_find(dataset, options["manifest"]), options["output"])
        elif options["remove"] is not None:
            frozen = _find(dataset, options["remove"])
            services.slices.remove(frozen=frozen)
            self.stdout.write(f"The slice “{frozen.name}” is gone. Its images and their tags stay.")
        else:
            self._list(dataset, as_json=options["json"])

    def _list(self, dataset: Dataset, *, as_json: bool) -> None:
        found = services.slices.listed(dataset=dataset)
        if as_json:
            self.stdout.write(to_json([services.slices.as_json(frozen=frozen) for frozen in found]))
            return
        if not found:
            self.stdout.write("Nothing is frozen yet. --freeze NAME --filter QUERY does it.")
            return
        rows = [
            [
                str(frozen.pk),
                frozen.name,
                f"{localtime(frozen.created):%Y-%m-%d %H:%M}",
                frozen.query,
                f"{frozen.samples:,}",
            ]
            for frozen in found
        ]
        print_table(result_console(self.stdout), "", ["slice", "name", "frozen", "filter", "images"], rows, right=4)

    def _manifest(self, frozen: FrozenSlice, output: str) -> None:
        with services.slices.manifest(frozen=frozen) as made:
            if output == "-":
                to_stdout(made.file)
                return
            with whole_file(Path(output)) as file:
                shutil.copyfileobj(made.file, file)
        self.stderr.write(f"The manifest of {frozen.samples:,} images is in {output}.")


def _find(dataset: Dataset, text: str) -> FrozenSlice:
    found = services.slices.find(dataset=dataset, text=text)
    if found is None:
        raise CommandError(f"“{dataset.name}” has no frozen slice “{text}”.", returncode=USAGE)
    return found
