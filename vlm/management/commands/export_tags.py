"""``export_tags``: the samples of a filter with their tags, as a file or on stdout."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from vlm import services
from vlm.management.commands._shared import add_filter_argument, find_dataset, read_filter
from vlm.samples import FilterError, StoreError


class Command(BaseCommand):
    help = "Export samples with their tags."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("dataset", help="name or number")
        add_filter_argument(parser)
        parser.add_argument("--format", required=True, choices=list(services.EXPORT_FORMATS))
        parser.add_argument("--output", type=Path, metavar="FILE", help="instead of stdout; replaced when complete")

    def handle(self, *args: Any, **options: Any) -> None:
        dataset = find_dataset(options["dataset"])
        output: Path | None = options["output"]
        try:
            stream = services.export_stream(
                dataset=dataset, filter=read_filter(options["filter"]), format=options["format"]
            )
            if output is None:
                for part in stream:
                    sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
                return
            partial = output.with_name(f".{output.name}.partial")
            try:
                with partial.open("wb") as file:
                    file.writelines(stream)
                partial.replace(output)
            finally:
                partial.unlink(missing_ok=True)
        except BrokenPipeError:
            sys.stderr.close()  # the reader has gone: nothing to tell
        except (FilterError, StoreError) as error:
            raise CommandError(str(error), returncode=2) from error
        except OSError as error:
            raise CommandError(
                f"{output or 'stdout'} cannot be written: {error.strerror or error}.", returncode=2
            ) from error
