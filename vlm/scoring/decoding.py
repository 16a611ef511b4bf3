"""Reading and cropping images in threads, a bounded number ahead of the model."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from vlm.errors import RootAway
from vlm.imaging import ImageUnreadable, Source, read_picture
from vlm.measures import Measures
from vlm.roots import GivenUp, Patience
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


Box: TypeAlias = "queue.Queue[Decoded | RootAway | GivenUp]"


@contextmanager
def decoded_ahead(
    samples: Iterator[Pending],
    job: Asking,
    tagger: Tagger,
    stop: threading.Event,
    away: Callable[[str], None] = lambda _: None,
) -> Iterator[Iterator[Decoded]]:
    """Decode ``samples`` in threads while the model works; yields them in order, a bounded number ahead.

    While their root is away the threads wait; once ``stop`` is set, what waits is left out, and all behind it. ``RootAway`` comes
    in the place of the first sample that was waited for too long.

    Plain daemon threads on purpose: an executor's refuse work while the interpreter exits, when a run finishes its batch.

    Args:
        away: told what is waited for, in whichever thread; see :class:`~vlm.roots.Patience`.
    """
    decoders = decode_threads(tagger.device)
    ahead = 2 * max(1, tagger.batch_size) + decoders
    tasks: queue.Queue[tuple[Pending, Box] | None] = queue.Queue()
    patiently = Patience(job.root, stop=stop, seconds=job.root_wait, tell=away)

    def work() -> None:
        while (task := tasks.get()) is not None:
            sample, box = task
            try:
                box.put(decode(sample, job, tagger, patiently))
            except (RootAway, GivenUp) as error:
                box.put(error)

    def results() -> Iterator[Decoded]:
        boxes: list[Box] = []
        more = True
        while more or boxes:
            while more and len(boxes) < ahead:
                sample = next(samples, None)
                if sample is None:
                    more = False
                    break
                box: Box = queue.Queue(1)
                tasks.put((sample, box))
                boxes.append(box)
            if boxes:
                decoded = boxes.pop(0).get()
                if isinstance(decoded, GivenUp):
                    return
                if isinstance(decoded, RootAway):
                    raise decoded
                yield decoded

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


def decode(
    sample: Pending,
    job: Asking,
    tagger: Tagger,
    patiently: Callable[[Callable[[], Source]], Source] = lambda read: read(),
) -> Decoded:
    """Read and crop one image. Whatever is wrong with it is its own affair; that its root is away is not.

    Args:
        patiently: calls what it is given, and may wait for the root; see :class:`~vlm.roots.Patience`.

    Raises:
        RootAway: the root does not answer.
        GivenUp: by ``patiently``.
    """
    try:
        source = patiently(partial(job.root.source, sample.path))
        picture = read_picture(
            source,
            max_pixels=job.max_pixels,
            enough=partial(tagger.enough, detail=job.detail),
            digested=True,
            measured=True,
        )
        prepared = tagger.prepare(picture.image, job.detail, size=picture.size)
        head = Head.of(picture.size, picture.exif)
        return Decoded(sample, prepared, "", picture.digest, picture.measures, head)
    except (RootAway, GivenUp):
        raise
    except ImageUnreadable as error:
        return Decoded(sample, None, str(error))
    except Exception as error:
        logger.warning("%s could not be decoded", sample.path, exc_info=True)
        return Decoded(sample, None, f"The image could not be decoded ({type(error).__name__}).")
