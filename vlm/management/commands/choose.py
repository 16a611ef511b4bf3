"""``choose``: full detail, low, or as needed, and in which number format: tried on some images of one's own."""

import shlex
from argparse import ArgumentParser
from typing import Any

from django.conf import settings

from vlm import services
from vlm.figures import duration, pace
from vlm.management.commands._shared import (
    DoorCommand,
    find_dataset,
    positive,
    print_table,
    result_console,
    stage_bar,
    to_json,
)
from vlm.runs.options import RunOptions
from vlm.services.runs import Choice, Way


class Command(DoorCommand):
    help = (
        "Ask some images of a data set at full and at low detail, in the usual number format and, where the machine has a faster one "
        "(int8 on a CPU, fp8 on a GPU), in that too; print speed, agreement and, where labels are, right answers of each way, of "
        "detail as needed too, and recommend one, with the hours for all images. No tag is written. Each number format is "
        "loaded anew, one at a time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument(
            "--limit",
            type=positive,
            default=50,
            metavar="N",
            help="images: half of them labelled ones, where there are any, the others from all over the data set (default 50)",
        )
        parser.add_argument(
            "--dimension", action="append", default=[], metavar="D", help="ask only this one; may be repeated"
        )
        parser.add_argument("--model", default="", help="hub id or folder (default: DATAVISOR_VLM_MODEL)")
        parser.add_argument("--device", default="", help="auto, cpu, mps, cuda, cuda:1 (default: DATAVISOR_VLM_DEVICE)")
        parser.add_argument("--no-progress", action="store_true", help="no progress bar on stderr")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = find_dataset(options["dataset"])
        asked = RunOptions(
            scope="all", dimensions=tuple(options["dimension"]), model=options["model"], device=options["device"]
        )
        with stage_bar(hidden=options["no_progress"]) as report:
            found = services.runs.choose(dataset=dataset, options=asked, limit=options["limit"], report=report)
        if options["json"]:
            self.stdout.write(to_json({"dataset": dataset.name} | found.to_json()))
            return
        console = result_console(self.stdout)
        rows = [
            [
                way.dtype,
                detail(way),
                pace(1 / way.seconds) if way.seconds else "–",
                "–" if way.same is None else f"{way.same:.1%}",
                f"{way.right} of {way.labels}" if way.labels else "–",
                duration(3600 * way.hours(found.whole)),
            ]
            for way in found.ways
        ]
        console.print(
            f"{found.images - found.failed} images on {found.device}, {found.labelled} of them labelled; nothing was written. "
            "Speed is the model's alone. Agreement is with full detail in the first format."
        )
        print_table(
            console, "", ["format", "detail", "pace", "the same", "right", f"all {found.whole:,} images"], rows, right=2
        )
        for dtype, why in found.missing.items():
            console.print(f"{dtype} was not tried: {why}")
        console.print(f"Recommended: {advice(found, dataset.name)}")


def detail(way: Way) -> str:
    return way.detail if way.full_share is None else f"auto, {way.full_share:.0%} at full"


def advice(found: Choice, name: str) -> str:
    """Return what to run, why, and how long it will take."""
    way = found.recommended
    program = "python manage.py" if settings.IS_CHECKOUT else "datavisor"
    share = "" if way.full_share is None else f" --full-share {way.full_share:g}"
    dtype = "" if way.dtype == found.ways[0].dtype else f"DATAVISOR_VLM_DTYPE={way.dtype} "
    few = "" if way.labels else " Label some images to see which is right."
    return (
        f"{dtype}{program} autotag {shlex.quote(name)} --detail {way.detail}{share}: {found.why}. "
        f"About {duration(3600 * way.hours(found.whole))} for all {found.whole:,} images.{few}"
    )
