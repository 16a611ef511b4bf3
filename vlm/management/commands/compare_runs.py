"""``compare_runs``: two runs side by side."""

from argparse import ArgumentParser
from typing import Any

from vlm import services
from vlm.management.commands._shared import DoorCommand, find_run, print_table, result_console, to_json


class Command(DoorCommand):
    help = "Compare the answers of two runs to the questions that both asked of the same images."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("first", type=int, help="number of a run")
        parser.add_argument("second", type=int, help="number of another run of the same data set")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")

    def handle(self, *args: Any, **options: Any) -> None:
        found = services.accuracy.compare(first=find_run(options["first"]), second=find_run(options["second"]))
        if options["json"]:
            self.stdout.write(to_json(found.to_json()))
            return
        console = result_console(self.stdout)
        rows = []
        for name, (_, agreed) in found.dimensions.items():
            same, kappa = agreed.same, agreed.kappa
            rows.append(
                [
                    name,
                    f"{agreed.samples:,}",
                    f"{same.value:.1%} ({same.low:.1%} to {same.high:.1%})" if same else "–",
                    f"{kappa.value:.2f} ({kappa.low:.2f} to {kappa.high:.2f})" if kappa else "–",
                ]
            )
        print_table(console, "", ["dimension", "images", "the same", "kappa"], rows)
        flips = [
            [name, flip.before or "no", flip.after or "no", f"{flip.samples:,}", f"{flip.share:.1%}"]
            for name, (_, agreed) in found.dimensions.items()
            for flip in agreed.flips
        ]
        if flips:
            console.print()
            print_table(
                console,
                "",
                ["dimension", f"run {found.first.pk}", f"run {found.second.pk}", "images", "share"],
                flips,
                right=3,
            )
