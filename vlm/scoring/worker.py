"""A worker: a model and the threads that decode for it, in a process of its own on whichever machine.

It knows a model, a vocabulary and where the images lie; no Django and no store. What it is asked comes with each call, so one
that was started anew goes on at once, and what it answers is kept by the driver alone.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datavisor import __version__
from vlm.errors import RootAway, RootRefused
from vlm.moondream import EngineError
from vlm.roots import LocalRoot, Patience, root_of
from vlm.samples import Pending, Result
from vlm.scoring.answering import ask
from vlm.scoring.decoding import decode, decode_threads
from vlm.scoring.engine import batches_of
from vlm.scoring.job import Asking
from vlm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from vlm.moondream import DimensionScore, Tagger
    from vlm.moondream.crops import Detail
    from vlm.moondream.tagger import Images


@dataclass(frozen=True, slots=True)
class Outfit:
    """What every worker of a run is given.

    Attributes:
        model, revision, device, dtype: as :func:`~vlm.moondream.load_tagger` takes them.
        cores: of its machine, that it may use; 0 for all.
    """

    model: str
    revision: str
    device: str
    dtype: str
    cores: int = 0


@dataclass(frozen=True, slots=True)
class Hello:
    """What a worker says of itself before it has a model; ``unseen`` is why it does not see the images, empty if it does."""

    version: str
    node: str
    pid: int
    unseen: str = ""

    def misfits(self, version: str) -> list[tuple[str, str]]:
        """Return why a run of the release ``version`` does not work with this worker: what is wrong with it, and what to do."""
        found = []
        if self.version != version:
            why = f"runs DataVisor {self.version}, and this machine {version}"
            found.append((why, "Install the same on all of them."))
        if self.unseen:
            advice = (
                "Mount a folder there under the same path; for a bucket, install datavisor[objects] there and set its credentials in "
                "the environment."
            )
            found.append((f"does not see the images: {self.unseen}", advice))
        return found


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a worker says of its model; ``batch_size`` images share a pass."""

    revision: str
    device: str
    dtype: str
    batch_size: int


@dataclass(frozen=True, slots=True)
class Looked:
    """What a worker sees of its machine.

    Attributes:
        gpu: its name; empty for none.
        cores: that it may use.
        model: why the model cannot be had; empty if it can.
        to_fetch: bytes of the model that are still to be downloaded.
    """

    gpu: str
    cores: int
    model: str
    to_fetch: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The results of a batch, and how many images share a pass from now on: full memory makes that fewer."""

    results: list[Result]
    batch_size: int
    seconds: float


def unseen(root: str) -> str:
    """Return why the images below ``root`` are not seen from this machine, empty if they are, or ``root`` is."""
    place = root_of(root) if root else None
    if isinstance(place, LocalRoot):
        return "" if place.path.is_dir() else f"there is no folder {place} on its machine"
    try:
        if place is not None:
            place.probe()
    except RootRefused as refused:
        return str(refused)
    except RootAway:
        pass  # which is waited for
    return ""


class Worker:
    """Answers a few calls at once: while the model is at one batch, the next one is decoded."""

    def __init__(self, outfit: Outfit) -> None:
        self._outfit = outfit
        self._tagger: Tagger | None = None
        self._model = threading.Lock()
        self._decoders: ThreadPoolExecutor | None = None

    def hello(self, root: str) -> Hello:
        """Say who this is, and whether it sees the images below ``root``; empty for no images in particular."""
        return Hello(__version__, socket.gethostname(), os.getpid(), unseen(root))

    def look(self) -> Looked:
        """Say what there is to work with, without loading it."""
        import torch  # takes seconds to import

        from vlm.moondream.hub import MODEL, PINNED, to_fetch

        name, folder, why, lacking = self._outfit.model, Path(self._outfit.model).expanduser(), "", 0
        if folder.is_dir():
            missing = [file.name for file in PINNED.values() if not (folder / file.name).is_file()]
            why = f"{folder} lacks {', '.join(missing)}" if missing else ""
        elif name == MODEL:
            lacking = to_fetch(name)
        else:
            why = f"there is no folder {name} on its machine"
        gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
        return Looked(gpu, self._outfit.cores or os.cpu_count() or 1, why, lacking)

    def load(self) -> Loaded:
        """Load the model, unless that was done.

        Raises:
            ModelUnavailable: with what to do about it.
        """
        with self._model:
            if self._tagger is None:
                import torch

                from vlm.moondream import load_tagger

                outfit = self._outfit
                if outfit.cores:
                    torch.set_num_threads(outfit.cores)
                self._tagger = load_tagger(outfit.model, outfit.revision or None, outfit.device, outfit.dtype)
                threads = decode_threads(self._tagger.device, outfit.cores)
                self._decoders = ThreadPoolExecutor(threads, "decode")
            tagger = self._tagger
            return Loaded(tagger.revision, tagger.device, tagger.dtype, tagger.batch_size)

    def answer(self, job: Asking, samples: Sequence[Pending]) -> Answered:
        """Decode and ask; an image that cannot be read is a failed result.

        Raises:
            EngineError: the model failed.
            RootAway: the images could not be reached for long.
        """
        start = time.perf_counter()
        tagger, decoders = self._loaded()
        # A run that is stopped waits for no worker: it ends this process.
        patiently = Patience(job.root, stop=threading.Event(), seconds=job.root_wait)
        batch = list(decoders.map(lambda sample: decode(sample, job, tagger, patiently), samples))
        with self._model, batches_of(job.batch_size, tagger):
            asked = ask(batch, job, tagger)
        # A GPU may still be at it, while the next call hands it the next batch.
        results = asked.results()
        return Answered(results, job.batch_size or tagger.batch_size, time.perf_counter() - start)

    def score(
        self, images: Images, vocabulary: Vocabulary, detail: Detail | None = None
    ) -> list[dict[str, DimensionScore]]:
        """Return dimension → score for each of a few images that come with the call. Raises ``EngineError``."""
        tagger, _ = self._loaded()
        with self._model:
            return tagger.score(images, vocabulary, detail)

    def _loaded(self) -> tuple[Tagger, ThreadPoolExecutor]:
        if self._tagger is None or self._decoders is None:
            raise EngineError("This worker was asked before it had loaded its model.")
        return self._tagger, self._decoders
