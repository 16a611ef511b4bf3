"""``watch``: look into a data set's folder every so often, import what is new and tag it, until Ctrl-C."""

import re
import signal
import threading
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.utils.timezone import localtime

from vlm import services
from vlm.errors import Refusal
from vlm.figures import counted
from vlm.management.commands._shared import DoorCommand, find_dataset, stopped_by, to_json
from vlm.models import Dataset, TaggingRun

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
STOPPING = (signal.SIGINT, signal.SIGTERM)


def seconds(text: str) -> int:
    """Return “90s”, “10m”, “2h” or “1d” in seconds."""
    found = re.fullmatch(r"(\d{1,7})([smhd])", text.strip())
    if found is None:
        raise ArgumentTypeError(f"“{text}” is no time: write 90s, 10m, 2h or 1d")
    return int(found[1]) * UNITS[found[2]]


class Command(DoorCommand):
    help = (
        "Look into a data set's folder every so often: import what is new, and tag it. Says something only where something "
        "changed. Ctrl-C ends it after the batch at hand; the next watch goes on there."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument("--every", type=seconds, default=600, metavar="TIME", help="90s, 10m (default), 2h, 1d")
        parser.add_argument("--no-tag", action="store_true", help="only import")
        parser.add_argument("--once", action="store_true", help="one look, then end: for a timer of your own")
        parser.add_argument("--json", action="store_true", help="one JSON object a line")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = find_dataset(options["dataset"])
        services.watches.check_seconds(seconds=options["every"])
        with stopped_by(*STOPPING) as stop:
            while True:
                try:
                    self._look(dataset, stop, tag=not options["no_tag"], as_json=options["json"])
                except Refusal as refusal:
                    if options["once"]:
                        raise
                    if not stop.is_set():  # a folder that is away may come back
                        self.stderr.write(f"{localtime():%H:%M} {refusal.message}")
                if options["once"] or stop.wait(options["every"]):
                    return

    def _look(self, dataset: Dataset, stop: threading.Event, *, tag: bool, as_json: bool) -> None:
        dataset.refresh_from_db()
        found = services.watches.look(dataset=dataset, tag=tag, stop=stop)
        if found.changed:
            told = ", ".join(f"{count:,} {what}" for what, count in found.changed.items())
            self._say(told, {"changed": found.changed}, as_json=as_json)
        if found.run is not None:
            run = services.runs.execute(run_id=found.run.pk, stop=stop)
            told = f"Run {run.pk} {run.get_status_display()}: {counted(run.processed, 'image')}, {run.tagged:,} tagged"
            counts = {name: getattr(run, name) for name in ("status", "processed", "tagged", "discarded", "failed")}
            self._say(told, {"run": run.pk, **counts, "error": run.error}, as_json=as_json)
            if run.status == TaggingRun.Status.FAILED:
                self.stderr.write(run.error)

    def _say(self, told: str, record: dict[str, Any], *, as_json: bool) -> None:
        now = localtime()
        if as_json:
            self.stdout.write(to_json({"time": now.isoformat(timespec="seconds"), **record}))
        else:
            self.stdout.write(f"{now:%H:%M} {told}")
        self.stdout.flush()
