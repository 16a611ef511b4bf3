"""``autotag``: tag a data set with the model, in this process."""

import shlex
import signal
import sys
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import connections
from rich.progress import Progress, TaskID

from vlm import services
from vlm.figures import pace
from vlm.management.commands._shared import (
    INTERRUPTED,
    SOME_FAILED,
    STAGES,
    USAGE,
    DoorCommand,
    add_filter_argument,
    find_dataset,
    find_run,
    gigabytes,
    positive,
    print_table,
    program,
    progress_bar,
    progress_console,
    read_filter,
    result_console,
    share,
    stage_bar,
    stopped_by,
    to_json,
)
from vlm.management.commands.vocabulary import read_vocabulary
from vlm.models import Dataset, TaggingRun
from vlm.runs.errors import NothingToTag
from vlm.runs.options import DETAILS, FULL_SHARE, RunOptions
from vlm.runs.state import RunState
from vlm.scoring.member import WorkerState
from vlm.vocabulary import Vocabulary

LOOK_SECONDS = 0.3
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CREW = ["worker", "machine", "device", "lost last by", "images", "times lost"]
KEPT = (
    "scope",
    "filter",
    "limit",
    "dimension",
    "model",
    "detail",
    "batch_size",
    "mode",
    "min_probability",
    "min_mass",
    "one_per_group",
)


class Command(DoorCommand):
    help = (
        "Tag the images of a data set with the model. Ctrl-C stops after the batch at hand, --resume goes on. "
        "Exit codes: 0 all fine, 1 some images failed, 2 nothing can be done like this, 3 model not available, "
        "130 interrupted or cancelled."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number of the data set")
        parser.add_argument(
            "--scope",
            choices=["all", "missing", "failed"],
            default="missing",
            help="missing (default): images that lack an answer of this vocabulary and model; failed: those whose image "
            "could not be read",
        )
        add_filter_argument(parser)
        parser.add_argument("--limit", type=positive, metavar="N", help="the first N images only")
        parser.add_argument(
            "--dimension", action="append", default=[], metavar="D", help="ask only this one; may be repeated"
        )
        parser.add_argument(
            "--vocabulary",
            metavar="FILE",
            help="ask what this TOML file says, for this run alone (see the command vocabulary)",
        )
        parser.add_argument(
            "--same-detail",
            action="store_true",
            help="with --scope missing: answers of another detail or number format do not count",
        )
        parser.add_argument(
            "--one-per-group",
            action="store_true",
            help="of images that are nearly the same ask one, and let the others take its answers over, marked as shared",
        )
        parser.add_argument("--model", default="", help="hub id or folder (default: DATAVISOR_VLM_MODEL)")
        parser.add_argument("--device", default="", help="auto, cpu, mps, cuda, cuda:1 (default: DATAVISOR_VLM_DEVICE)")
        parser.add_argument(
            "--workers",
            metavar="W",
            help="where to work: here, in this process; local:N, on N processes of this machine (without :N one per GPU); auto, on the "
            "Ray cluster that this machine is in; ray://HOST:PORT, on another one (default: DATAVISOR_WORKERS)",
        )
        parser.add_argument(
            "--detail",
            choices=list(DETAILS),
            help="full: all crops; low: one crop per image; auto: low for all, then full for the least certain",
        )
        parser.add_argument(
            "--full-share",
            type=share,
            metavar="S",
            help=f"with --detail auto: of the images, how many are asked again at full detail (default: {FULL_SHARE})",
        )
        parser.add_argument("--batch-size", type=positive, metavar="N", help="images per pass (default: what fits)")
        parser.add_argument(
            "--mode",
            choices=["score", "generate"],
            default="score",
            help="score (default): probabilities of the allowed words; generate: the greedy answer, matched to them",
        )
        parser.add_argument(
            "--min-probability",
            type=share,
            metavar="P",
            help="discard words less probable than this among the allowed ones (0 to 1)",
        )
        parser.add_argument(
            "--min-mass",
            type=share,
            metavar="P",
            help="discard answers with less than this of the model's probability on the allowed words (0 to 1)",
        )
        parser.add_argument("--dry-run", action="store_true", help="score 20 images and show what would change")
        parser.add_argument(
            "--resume",
            action="store_true",
            help="go on with the data set's last run, as it was begun; only --device and --workers may be given anew",
        )
        parser.add_argument("--run", type=positive, metavar="N", help="with --resume: this run instead of the last one")
        parser.add_argument("--no-progress", action="store_true", help="no progress bar on stderr")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = find_dataset(options["dataset"])
        chosen = {
            name: options[name]
            for name in ("detail", "full_share", "batch_size", "min_probability", "min_mass", "workers")
            if options[name] is not None
        }
        run_options = RunOptions(
            scope=options["scope"],
            filter=read_filter(options["filter"]),
            limit=options["limit"],
            dimensions=tuple(options["dimension"]),
            mode=options["mode"],
            model=options["model"],
            device=options["device"],
            vocabulary=vocabulary_of(options["vocabulary"]) if options["vocabulary"] else None,
            same_detail=options["same_detail"],
            one_per_group=options["one_per_group"],
            **chosen,
        )
        if options["dry_run"]:
            self._preview(dataset, run_options, as_json=options["json"], no_progress=options["no_progress"])
            return
        run = self._resumed(dataset, options) if options["resume"] else self._created(dataset, run_options)
        if run is None:
            self._nothing(options["json"])
            return
        run = self._work(run, no_progress=options["no_progress"])
        self._report(run, options["json"])
        if (code := exit_code(run)) != 0:
            sys.exit(code)

    def _created(self, dataset: Dataset, options: RunOptions) -> TaggingRun | None:
        try:
            return services.runs.create(dataset=dataset, options=options, user=None, origin=TaggingRun.Origin.COMMAND)
        except NothingToTag:
            return None

    def _resumed(self, dataset: Dataset, options: dict[str, Any]) -> TaggingRun:
        """Return the data set's last run, or the one that ``--run`` names, ready to go on."""
        parser = self.create_parser("", "autotag")
        given = [name for name in KEPT if options[name] != parser.get_default(name)]
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise CommandError(
                f"--resume goes on with a run as it was begun, so {flags} would change nothing: leave out the one or the other.",
                returncode=USAGE,
            )
        run = services.runs.last(dataset=dataset) if options["run"] is None else find_run(options["run"])
        if (
            run is None
            or run.dataset_id != dataset.pk
            or (options["run"] is None and run.status == TaggingRun.Status.COMPLETED)
        ):
            older = services.runs.last_unfinished(dataset=dataset)
            there = (
                f"Run {older.pk} is {older.get_status_display()}: --resume --run {older.pk} goes on with it."
                if older
                else "Leave out --resume to start one."
            )
            what = "has no unfinished run" if older is None else "was tagged to the end by its last run"
            if options["run"] is not None:
                what = f"has no run {options['run']}"
            raise CommandError(f"“{dataset.name}” {what}. {there}", returncode=USAGE)
        anew = {"device": options["device"], "workers": options["workers"]}
        return services.runs.requeue(run=run, user=None, origin=TaggingRun.Origin.COMMAND, **anew)

    def _work(self, run: TaggingRun, *, no_progress: bool) -> TaggingRun:
        """Work on the run in a thread, so that this one can draw and hear signals."""
        ended: list[TaggingRun] = []
        with stopped_by(*STOPPING) as stop, progress_bar(progress_console(), hidden=no_progress) as bar:
            worker = threading.Thread(
                target=self._execute, args=(run.pk, stop, ended), name=f"run-{run.pk}", daemon=True
            )
            worker.start()
            task = bar.add_task("starting", total=None, counts="")
            while worker.is_alive():
                worker.join(LOOK_SECONDS)
                run.refresh_from_db()
                draw(bar, task, services.runs.state(run=run), stopping=stop.is_set())
        if ended:
            return ended[0]
        run.refresh_from_db()
        return run

    def _execute(self, run_id: int, stop: threading.Event, ended: list[TaggingRun]) -> None:
        try:
            ended.append(services.runs.execute(run_id=run_id, stop=stop))
        finally:
            connections.close_all()

    def _report(self, run: TaggingRun, as_json: bool) -> None:
        words = services.runs.words(run=run)
        if as_json:
            counts: dict[str, int] = {}
            for word in words:
                if word.accepted:
                    counts[word.word] = counts.get(word.word, 0) + word.accepted
            result = {
                "run": run.pk,
                "status": run.status,
                "total": run.total,
                "processed": run.processed,
                "tagged": run.tagged,
                "discarded": run.discarded,
                "failed": run.failed,
                "shared": run.shared,
                "seconds": round(run.seconds, 2),
                "images_per_second": round(run.rate, 3),
                "tags": counts,
                "priors": run.priors,
            }
            if run.workers:
                result |= {"workers": run.workers, "crew": run.crew}
            self.stdout.write(to_json(result))
            if run.error:
                self.stderr.write(run.error)
            return
        console = result_console(self.stdout)
        if words:
            rows = [[w.dimension, w.word or "(other text)", f"{w.accepted:,}", f"{w.discarded:,}"] for w in words]
            print_table(console, "", ["dimension", "word", "tagged", "discarded"], rows, right=2)
        console.print(
            f"Run {run.pk} {run.get_status_display()}: {run.processed:,} of {run.total:,} images in {run.seconds:.1f} s "
            f"({pace(run.rate)}), {run.tagged:,} tagged, {run.discarded:,} answers discarded, {run.failed:,} failed"
            f"{f', {run.shared:,} with a shared answer' if run.one_per_group else ''}."
        )
        if run.crew:
            print_table(console, "", CREW, [crew_row(worker) for worker in services.runs.state(run=run).crew], right=4)
        for line in services.runs.blind_lines(run=run):
            console.print(line)
        for failure in services.runs.failures(run=run, limit=20):
            console.print(f"failed: {failure.file_name}: {failure.reason}")
        if run.error:
            self.stderr.write(run.error)
        if run.status in TaggingRun.RESUMABLE:
            self.stderr.write(f"Go on with: {program()} autotag {shlex.quote(run.dataset.name)} --resume")

    def _nothing(self, as_json: bool) -> None:
        if as_json:
            empty = {
                "run": None,
                "status": "completed",
                "total": 0,
                "processed": 0,
                "tagged": 0,
                "discarded": 0,
                "failed": 0,
                "shared": 0,
            }
            self.stdout.write(to_json({**empty, "seconds": 0, "images_per_second": 0, "tags": {}, "priors": {}}))
        else:
            self.stdout.write("No image waits in this scope. --scope all asks about all images again.")

    def _preview(self, dataset: Dataset, options: RunOptions, *, as_json: bool, no_progress: bool) -> None:
        with stage_bar(hidden=no_progress) as report:
            previews = services.runs.preview(dataset=dataset, options=options, report=report)
        if as_json:
            rows = [
                {
                    "file_name": preview.sample.file_name,
                    "tags": [tag.tag for tag in preview.sample.tags],
                    "answers": {
                        name: {"word": word, "probability": probability, "accepted": accepted}
                        for name, (word, probability, accepted) in preview.words.items()
                    },
                    "error": preview.error,
                }
                for preview in previews
            ]
            self.stdout.write(to_json({"dry_run": True, "samples": rows}))
            return
        if not previews:
            self._nothing(False)
            return
        names = list(dict.fromkeys(name for preview in previews for name in preview.words))
        table = []
        for preview in previews:
            cells = []
            for name in names:
                word, probability, accepted = preview.words.get(name, ("", None, False))
                text = word if probability is None else f"{word} {probability:.0%}"
                cells.append(text if accepted or not word else f"({text})")
            now = ", ".join(tag.tag for tag in preview.sample.tags) or "–"
            table.append([preview.sample.file_name, now, *(cells if not preview.error else [preview.error])])
        print_table(
            result_console(self.stdout),
            "What a run would say (in brackets: discarded). Nothing was written.",
            ["sample", "tags now", *names],
            table,
            right=99,
        )


def exit_code(run: TaggingRun) -> int:
    """Return 0 all fine, 1 some images failed, 2 the run failed, 3 no model, 130 interrupted."""
    if run.status == TaggingRun.Status.FAILED:
        return run.cause.exit_code if run.cause is not None else USAGE
    if run.status in (TaggingRun.Status.INTERRUPTED, TaggingRun.Status.CANCELLED):
        return INTERRUPTED
    return SOME_FAILED if run.failed else 0


def draw(bar: Progress, task: TaskID, state: RunState, *, stopping: bool) -> None:
    if state.status == TaggingRun.Status.LOADING and state.download_total:
        bar.update(
            task,
            description=STAGES["download"],
            completed=state.download_done,
            total=state.download_total,
            counts=gigabytes(state.download_done, state.download_total),
        )
    elif state.status in (TaggingRun.Status.QUEUED, TaggingRun.Status.LOADING):
        bar.update(task, description=STAGES["load"], total=None, counts="")
    else:
        bar.update(
            task,
            description="stopping" if stopping else "",
            completed=state.processed,
            total=state.total or None,
            counts=counts_line(state),
        )


def counts_line(state: RunState) -> str:
    """Return done, rate, time left, tagged, discarded and failed: short enough to leave room for a bar in 80 columns."""
    parts = [f"{short(state.processed)}/{short(state.total)}", pace(state.rate)]
    if state.crew:
        parts.append(f"{sum(worker.state == 'ready' for worker in state.crew)}/{len(state.crew)} workers")
    if state.eta is not None:
        parts.append(f"{duration(state.eta)} left")
    parts += [f"{short(state.tagged)} tagged", f"{short(state.discarded)} discarded", f"{short(state.failed)} failed"]
    return ", ".join(parts)


def crew_row(worker: WorkerState) -> list[str]:
    """Return how a worker was, in the columns of ``CREW``."""
    return [worker.name, worker.node, worker.device, worker.why, f"{worker.images:,}", f"{worker.deaths:,}"]


def short(count: int) -> str:
    """Return at most five characters: 9,999, 12.3k, 123k, 1.23M."""
    if count < 10_000:
        return f"{count:,}"
    if count < 1_000_000:
        return f"{count / 1000:.1f}k" if count < 99_950 else f"{count // 1000}k"
    return f"{count / 1e6:.3g}M"


def duration(seconds: float) -> str:
    """Return at most six characters: 12:34, 3h05m, 12d04h."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if not hours:
        return f"{minute}:{second:02}"
    return f"{hours}h{minute:02}m" if hours < 24 else f"{hours // 24}d{hours % 24:02}h"


def vocabulary_of(path: str) -> Vocabulary:
    """Return the dimensions of a vocabulary file that are switched on. Raises ``CommandError``, ``VocabularyError``."""
    return Vocabulary(tuple(entry.dimension for entry in read_vocabulary(path) if entry.enabled))
