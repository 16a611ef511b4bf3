"""``calibrate``: decide a dimension's answers by calibrated probabilities, or by the model's own again."""

from argparse import ArgumentParser
from typing import Any

from vlm import services
from vlm.management.commands._shared import DoorCommand, find_dataset, print_table, result_console, to_json


class Command(DoorCommand):
    help = (
        "Fit a calibration of a dimension's probabilities on the labels that count (at least 30), and decide its answers by it, "
        "without the model; only if that does better on labels that the fit had not seen. What the model said itself is kept, and "
        "--remove goes back to it, exactly."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument("--dimension", required=True, metavar="D", help="whose answers")
        parser.add_argument("--remove", action="store_true", help="go by what the model said itself again")
        parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of text")

    def handle(self, *args: Any, **options: Any) -> None:
        what: dict[str, Any] = {"dataset": find_dataset(options["dataset"]), "dimension": options["dimension"]}
        dry, remove = options["dry_run"], options["remove"]
        fitted = None
        if remove:
            door = services.calibrations.preview_removal if dry else services.calibrations.remove
            done = door(**what)
        elif dry:
            fitted, done = services.calibrations.preview(**what)
        else:
            fitted, done = services.calibrations.apply(**what, user=None)
        if options["json"]:
            told = services.calibrations.to_json(options["dimension"], fitted, done, in_force=remove == dry)
            self.stdout.write(to_json(told | {"dry_run": dry}))
            return
        console = result_console(self.stdout)
        if fitted is not None:
            console.print(
                f"Temperature {fitted.temperature:.2f}, on {fitted.labels} labels. On labels that the fit had not seen: log loss "
                f"{fitted.after.log_loss:.3f} instead of {fitted.before.log_loss:.3f}, expected calibration error "
                f"{fitted.after.ece:.1%} instead of {fitted.before.ece:.1%}."
            )
        console.print(
            f"{'Would be' if dry else 'Now'} {done.accepted_after:,} of {done.answers:,} answers accepted, {done.accepted_before:,} "
            f"before; the tag of {done.changed:,} images {'would change' if dry else 'changed'}."
        )
        if done.flips:
            rows = [[before or "no", after or "no", f"{count:,}"] for before, after, count in done.flips]
            print_table(console, "", ["from", "to", "answers"], rows, right=2)
