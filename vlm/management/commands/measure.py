"""``measure``: measure the images of a data set without the model."""

import signal
import sys
import threading
from argparse import ArgumentParser
from typing import Any

from django.db import connections

from vlm import services
from vlm.management.commands._shared import (
    INTERRUPTED,
    SOME_FAILED,
    USAGE,
    DoorCommand,
    find_dataset,
    progress_bar,
    progress_console,
    stopped_by,
    to_json,
)
from vlm.models import MeasureJob

LOOK_SECONDS = 0.3
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHOWN_PROBLEMS = 20


class Command(DoorCommand):
    help = (
        "Measure the images of a data set that nobody measured, without the model: brightness, contrast, sharpness, noise, colours, "
        "and a hash of how they look. Ctrl-C stops after the images at hand; the next call goes on. Exit codes: 0 all fine, "
        "1 some images could not be read, 2 it could not be done, 130 interrupted or cancelled."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument("--no-progress", action="store_true", help="no progress bar on stderr")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = find_dataset(options["dataset"])
        job = services.pixels.measure_create(dataset=dataset, user=None)
        job = self._work(job, hidden=options["no_progress"])
        self._report(job, as_json=options["json"])
        code = {
            MeasureJob.Status.COMPLETED: SOME_FAILED if job.failed else 0,
            MeasureJob.Status.FAILED: USAGE,
        }.get(MeasureJob.Status(job.status), INTERRUPTED)
        if code:
            sys.exit(code)

    def _work(self, job: MeasureJob, *, hidden: bool) -> MeasureJob:
        """Work on the job in a thread, so that this one can draw and hear signals."""
        with stopped_by(*STOPPING) as stop, progress_bar(progress_console(), hidden=hidden) as bar:
            worker = threading.Thread(target=self._execute, args=(job.pk, stop), name=f"measure-{job.pk}", daemon=True)
            worker.start()
            task = bar.add_task("measuring", total=job.total or None, counts="")
            while worker.is_alive():
                worker.join(LOOK_SECONDS)
                job.refresh_from_db()
                bar.update(task, completed=job.done, total=job.total or None, counts=f"{job.done:,}/{job.total:,}")
        job.refresh_from_db()
        return job

    def _execute(self, job_id: int, stop: threading.Event) -> None:
        try:
            services.pixels.measure_execute(job_id=job_id, stop=stop)
        finally:
            connections.close_all()

    def _report(self, job: MeasureJob, *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(to_json(services.pixels.measure_state(job=job)))
            return
        measured = job.done - job.failed
        self.stdout.write(
            f"{job.get_status_display().capitalize()}: {measured:,} of {job.total:,} images measured, "
            f"{job.failed:,} could not be read."
        )
        for problem in job.problems[:SHOWN_PROBLEMS]:
            self.stdout.write(f"not read: {problem['path']}: {problem['reason']}")
        if job.failed > SHOWN_PROBLEMS:
            self.stdout.write(f"… and {job.failed - SHOWN_PROBLEMS:,} more.")
        if job.error:
            self.stderr.write(job.error)
