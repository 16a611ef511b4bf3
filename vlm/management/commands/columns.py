"""``columns``: list, describe or remove the columns of a data set."""

from argparse import ArgumentParser
from typing import Any

from vlm import services
from vlm.management.commands._shared import DoorCommand, find_dataset, print_table, result_console, to_json


class Command(DoorCommand):
    help = "List the columns that import_scores brought into a data set; describe one, or remove it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument("--describe", nargs=2, metavar=("NAME", "TEXT"), help="say what a column is")
        parser.add_argument("--remove", metavar="NAME", help="forget a column with its values")
        parser.add_argument("--json", action="store_true", help="a JSON list on stdout instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = find_dataset(options["dataset"])
        if options["describe"]:
            name, text = options["describe"]
            services.columns.describe(dataset=dataset, name=name, description=text)
        if options["remove"]:
            services.columns.remove(dataset=dataset, name=options["remove"])
        there = services.columns.listed(dataset=dataset)
        if options["json"]:
            self.stdout.write(to_json([services.columns.to_json(column) for column in there]))
            return
        console = result_console(self.stdout)
        if not there:
            console.print("No column yet. import_scores brings some in.")
            return
        print_table(
            console,
            "",
            ["column", "kind", "values", "description", "source"],
            [[column.name, column.kind, f"{column.values:,}", column.description, column.source] for column in there],
            right=5,
        )
