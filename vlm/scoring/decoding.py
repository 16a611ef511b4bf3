"""Reading and cropping images in threads, a bounded number ahead of the model."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vlm.formats.files import locate
from vlm.imaging import ImageUnreadable, read_picture
from vlm.measures import Measures
from vlm.samples import Head, Pending
from vlm.scoring.job import Asking

if TYPE_CHECKING:
    from vlm.moondream import PreparedImage, Tagger

logger = logging.getLogger(__name__)

MOST_DECODERS = 16  # threads; Pillow lets go of the interpreter while it decodes


@dataclass(frozen=True, slots=True)
class Decoded:
    """A sample whose image is ready for the model, or the reason why it is not."""

    sample: Pending
    image: PreparedImage | None
    error: str = ""
    digest: str = ""
    measures: Measures | None = None
    head: Head | None = None


@contextmanager
def decoded_ahead(samples: Iterator[Pending], job: Asking, tagger: Tagger) -> Iterator[Iterator[Decoded]]:
    """Decode ``samples`` in threads while the model works; yields them in order, a bounded number ahead.

    Plain daemon threads on purpose: an executor's refuse work while the interpreter exits, when a run finishes its batch.
    """
    decoders = decode_threads(tagger.device)
    ahead = 2 * max(1, tagger.batch_size) + decoders
    tasks: queue.Queue[tuple[Pending, queue.Queue[Decoded]] | None] = queue.Queue()

    def work() -> None:
        while (task := tasks.get()) is not None:
            sample, box = task
            box.put(decode(sample, job, tagger))

    def results() -> Iterator[Decoded]:
        boxes: list[queue.Queue[Decoded]] = []
        more = True
        while more or boxes:
            while more and len(boxes) < ahead:
                sample = next(samples, None)
                if sample is None:
                    more = False
                    break
                box: queue.Queue[Decoded] = queue.Queue(1)
                tasks.put((sample, box))
                boxes.append(box)
            if boxes:
                yield boxes.pop(0).get()

    threads = [threading.Thread(target=work, name=f"decode-{index}", daemon=True) for index in range(decoders)]
    for thread in threads:
        thread.start()
    try:
        yield results()
    finally:
        while not tasks.empty():  # nobody waits for these any more
            try:
                tasks.get_nowait()
            except queue.Empty:
                break
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join()


def decode_threads(device: str, cores: int = 0) -> int:
    """Choose how many threads decode: a CPU that runs the model needs its cores for that, a GPU may wait for images.

    Args:
        cores: that may be used; 0 for all of the machine.
    """
    return 2 if device == "cpu" else min(MOST_DECODERS, cores or os.cpu_count() or 2)


def decode(sample: Pending, job: Asking, tagger: Tagger) -> Decoded:
    """Read and crop one image. Whatever is wrong with it is its own affair."""
    try:
        path = locate(job.root, sample.path)
        picture = read_picture(
            path,
            max_pixels=job.max_pixels,
            enough=partial(tagger.enough, detail=job.detail),
            digested=True,
            measured=True,
        )
        prepared = tagger.prepare(picture.image, job.detail, size=picture.size)
        head = Head.of(picture.size, picture.exif)
        return Decoded(sample, prepared, "", picture.digest, picture.measures, head)
    except ImageUnreadable as error:
        return Decoded(sample, None, str(error))
    except Exception as error:
        logger.warning("%s could not be decoded", sample.path, exc_info=True)
        return Decoded(sample, None, f"The image could not be decoded ({type(error).__name__}).")
