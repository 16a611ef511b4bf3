"""``import_dataset``: make a data set of a folder of images, a COCO JSON or a YOLO folder; or bring one up to date."""

from argparse import ArgumentParser
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from vlm import services
from vlm.formats import AUTO, IMPORTS
from vlm.management.commands._shared import DoorCommand, progress_console, to_json

SHOWN_SKIPS = 20


class Command(DoorCommand):
    help = "Import a folder of images, a COCO data set or a YOLO data set. Importing again keeps all tags."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", help="the data set's folder or URL (s3://, gs://, az://), or its JSON or data.yaml")
        parser.add_argument("--name", default="", help="of the data set (default: the folder's name)")
        parser.add_argument("--format", default=AUTO, choices=[AUTO, *IMPORTS], help="auto (default): find out")
        parser.add_argument("--dry-run", action="store_true", help="say what would be found, write nothing")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
        parser.add_argument("--no-progress", action="store_true", help="no progress bar on stderr")

    def handle(self, *args: Any, **options: Any) -> None:
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=progress_console(),
            transient=True,
            disable=options["no_progress"],
        )
        with bar:
            task = bar.add_task("reading", total=None)
            done = services.datasets.import_folder(
                path=options["path"],
                name=options["name"],
                format=options["format"],
                dry_run=options["dry_run"],
                report=lambda count, total: bar.update(task, completed=count, total=total),
                looked=lambda count, total: bar.update(
                    task, description="looking at the files", completed=count, total=total
                ),
            )
        result = {
            "dataset": done.dataset.pk if done.dataset else None,
            "name": done.dataset.name if done.dataset else None,
            "root": str(done.root),
            "format": done.format,
            "samples": done.total,
            "added": done.imported.added,
            "updated": done.imported.updated,
            "missing": done.imported.missing,
            "summary": done.summary,
            "skipped": done.skip_count,
            "skips": [{"path": skip.path, "reason": skip.reason} for skip in done.skips],
        }
        if options["json"]:
            self.stdout.write(to_json(result))
            return
        for skip in done.skips[:SHOWN_SKIPS]:
            self.stdout.write(f"skipped {skip.path}: {skip.reason}")
        if done.skip_count > SHOWN_SKIPS:
            self.stdout.write(f"… and {done.skip_count - SHOWN_SKIPS:,} more; --json lists them.")
        if done.dataset is None:
            told = f"{done.root}: {done.total:,} images would be imported ({done.format})"
        else:
            told = f"Data set {done.dataset.pk} “{done.dataset.name}” ({done.format}): {done.total:,} images"
        counts = [f"{count:,} {what}" for what, count in done.summary.items() if count or what == "new"]
        self.stdout.write(f"{told}, {', '.join(counts)}.")
