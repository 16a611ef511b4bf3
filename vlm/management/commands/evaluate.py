"""``evaluate``: how right the tags are, from labels whose chance of having been drawn is known."""

from argparse import ArgumentParser
from typing import Any

from vlm import services
from vlm.management.commands._shared import (
    DoorCommand,
    find_dataset,
    print_table,
    result_console,
    share,
    to_json,
)
from vlm.services.accuracy import TARGET, Accuracy
from vlm.statistics.calibration import Calibration
from vlm.statistics.intervals import Estimate
from vlm.statistics.thresholds import Kept, NotReachable


class Command(DoorCommand):
    help = (
        "Print accuracy, precision, recall and corrected shares of each dimension's words with 95 % intervals, calibration, and "
        "the threshold that a promise needs. Only labels with a known probability count (see review_sample)."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument("--dimension", metavar="D", help="this one only (default: all that were answered)")
        parser.add_argument(
            "--target",
            type=share,
            default=TARGET,
            metavar="P",
            help="share of the tags that is to be right (default 0.95)",
        )
        parser.add_argument("--json", action="store_true", help="a JSON list on stdout instead of tables")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = find_dataset(options["dataset"])
        dimension, target = options["dimension"], options["target"]
        found = (
            [services.accuracy.evaluate(dataset=dataset, dimension=dimension, target=target)]
            if dimension
            else services.accuracy.overview(dataset=dataset, target=target)
        )
        if options["json"]:
            self.stdout.write(to_json([one.to_json() for one in found]))
            return
        console = result_console(self.stdout)
        if not found:
            console.print("The model has answered nothing yet. Auto-tag first.")
        for one in found:
            console.print(f"{one.dimension}: {headline(one)}")
            if one.evaluation is not None:
                print_table(
                    console,
                    "",
                    ["word", "labels", "precision", "recall", "model's share", "corrected share"],
                    [
                        [
                            word.word or "no",
                            str(word.labels),
                            told(word.precision),
                            told(word.recall),
                            f"{word.said:.1%}",
                            told(word.share),
                        ]
                        for word in one.evaluation.words
                    ],
                )
            if one.promise is not None and one.random_labels:
                console.print(promised(one.promise))
            if isinstance(one.calibration, Calibration):
                console.print(
                    f"Calibrated (temperature {one.calibration.temperature:.2f}), log loss would be "
                    f"{one.calibration.after.log_loss:.3f} instead of {one.calibration.before.log_loss:.3f}."
                )
            console.print()


def headline(one: Accuracy) -> str:
    counted = f"{one.random_labels:,} of {one.labels:,} labels count"
    if one.evaluation is None:
        return f"no figure yet, {counted}. Draw some with review_sample, or on the review page."
    if one.evaluation.accuracy is None:
        return f"too few labels for a figure, {counted}. Label about {one.evaluation.more:,} more for ± 5 %."
    more = f" Label about {one.evaluation.more:,} more for ± 5 %." if one.evaluation.more else ""
    return f"{told(one.evaluation.accuracy)} right, {counted}.{more}"


def promised(promise: Kept | NotReachable) -> str:
    if isinstance(promise, Kept):
        return (
            f"At least {promise.target:.0%} right, with {promise.confidence:.0%} confidence: tag from probability "
            f"{promise.threshold:.3f} on; that tags {promise.tagged:.0%} of the images. See promise."
        )
    more = f" Label about {promise.more:,} more." if promise.more else ""
    return f"These labels cannot promise that {promise.target:.0%} are right.{more}"


def told(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"
