"""``import_store``: bring in the data sets of an archive that ``export_store`` has written."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from vlm import services
from vlm.figures import counted
from vlm.management.commands._shared import DoorCommand, to_json

VOCABULARY = {
    "taken over": "Its vocabulary is this installation's from now on.",
    "left out": "Its vocabulary is another one than here, which stays: tags follow the conditions that hold here.",
}


class Command(DoorCommand):
    help = "Bring in the data sets of an archive, beside those that are there. Nothing changes where something does not fit."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="that export_store made")
        parser.add_argument(
            "--rename",
            action="store_true",
            help="give a data set whose name is taken another one, with a number behind it",
        )
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path = options["folder"].expanduser().absolute()
        done = services.archives.read(folder=folder, rename=options["rename"])
        if options["json"]:
            datasets = [
                {"id": dataset.pk, "name": dataset.name, "samples": dataset.sample_count} for dataset in done.datasets
            ]
            told = {"datasets": datasets, "vocabulary": done.vocabulary, "views_left_out": done.views_left_out}
            self.stdout.write(to_json(told))
            return
        for dataset in done.datasets:
            self.stdout.write(f"{dataset.name}: {counted(dataset.sample_count, 'sample')}, images in {dataset.root}")
        if done.vocabulary in VOCABULARY:
            self.stdout.write(VOCABULARY[done.vocabulary])
        if done.views_left_out:
            self.stdout.write(
                f"{counted(done.views_left_out, 'saved view')} left out: there is no user of that name here."
            )
