"""What this process holds: one sample store, and one model.

Both are opened on first need. The model is used by one run at a time, and given back when idle.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Literal, cast

from django.conf import settings
from django.db import OperationalError

from datavisor.private import own_data_dir
from vlm.errors import DatabaseFull, DatabaseUnusable
from vlm.models import Dataset, StoreBinding
from vlm.moondream import identity
from vlm.moondream.errors import DeviceLost
from vlm.samples import Cursor, SampleStore, StoreBusy, StoreForeign, reading

if TYPE_CHECKING:
    from vlm.moondream import LoadProgress, Tagger

logger = logging.getLogger(__name__)

State = Literal["not loaded", "loading", "loaded"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model is wanted, and where; empty texts mean the engine's own choice."""

    model: str
    revision: str = ""
    device: str = "auto"
    dtype: str = "auto"

    @classmethod
    def from_settings(cls, *, model: str = "", device: str = "") -> ModelSpec:
        own = model or settings.VLM_MODEL
        # A revision belongs to the model it was set for.
        revision = settings.VLM_REVISION if own == settings.VLM_MODEL else ""
        return cls(own, revision, device or settings.VLM_DEVICE, settings.VLM_DTYPE)


class ModelKeeper:
    """Holds at most one model. Whoever uses it has it alone, so runs of several data sets queue here."""

    def __init__(self, idle_seconds: float) -> None:
        self.idle_seconds = idle_seconds
        self.state: State = "not loaded"
        self._using = threading.Lock()
        self._tagger: Tagger | None = None
        self._spec: ModelSpec | None = None
        self._used_at = 0.0
        self._timer: threading.Timer | None = None

    @contextmanager
    def use(
        self,
        spec: ModelSpec,
        *,
        waiting: Callable[[], None] = lambda: None,
        loading: Callable[[], None] = lambda: None,
        progress: Callable[[LoadProgress], None] = lambda _: None,
    ) -> Iterator[Tagger]:
        """Yield the model, loaded if need be, for this caller alone.

        Args:
            waiting: called twice a second while another run uses the model; may raise to give up.
            loading: called before the model is loaded.
            progress: called with what is downloaded and loaded.

        Raises:
            ModelUnavailable: with what to do about it.
        """
        while not self._using.acquire(timeout=0.5):
            waiting()
        try:
            if self._timer is not None:
                self._timer.cancel()
            if not self._holds(spec):
                self._release()
                loading()
                self.state = "loading"
                try:
                    from vlm.moondream import load_tagger  # PyTorch itself takes seconds to import

                    self._tagger = load_tagger(
                        spec.model, spec.revision or None, spec.device, spec.dtype, progress=progress
                    )
                finally:
                    self.state = "loaded" if self._tagger is not None else "not loaded"
                self._spec = spec
            yield cast("Tagger", self._tagger)
        except DeviceLost:
            self._release()  # whoever comes next tries anew
            raise
        finally:
            self._used_at = time.monotonic()
            self._using.release()
            self._release_later()

    @contextmanager
    def lent(self, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Have the model's turn without the model, as a run on workers: its memory is given back, and no other run comes between.

        Args:
            waiting: as for :meth:`use`.
        """
        while not self._using.acquire(timeout=0.5):
            waiting()
        try:
            if self._timer is not None:
                self._timer.cancel()
            self._release()
            yield
        finally:
            self._using.release()

    def _holds(self, spec: ModelSpec) -> bool:
        """Whether the loaded model is the one that is wanted, also by what its files are by now."""
        if self._tagger is None or self._spec is None:
            return False
        loaded = self._tagger.revision
        return (
            replace(self._spec, revision="") == replace(spec, revision="")
            and spec.revision in ("", loaded)
            and identity(spec.model) == loaded
        )

    def release(self) -> None:
        """Give the model's memory back, unless it is in use."""
        if self._using.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._using.release()

    def _release_later(self) -> None:
        if self._tagger is None or not self.idle_seconds:
            return
        self._timer = threading.Timer(self.idle_seconds, self._release_if_idle)
        self._timer.daemon = True
        self._timer.start()

    def _release_if_idle(self) -> None:
        if time.monotonic() - self._used_at >= self.idle_seconds * 0.99:
            self.release()

    def _release(self) -> None:
        if self._tagger is not None:
            self._tagger.close()
            logger.info("The model was released.")
        self._tagger, self._spec, self.state = None, None, "not loaded"


keeper = ModelKeeper(settings.VLM_IDLE_MINUTES * 60)


@cache
def sample_store() -> SampleStore:
    """Return the store of ``DATAVISOR_DATA_DIR``."""
    if settings.DUCKDB_PATH.parent == settings.DATA_DIR:
        own_data_dir(settings.DATA_DIR)
    return SampleStore(
        settings.DUCKDB_PATH,
        memory_limit=settings.DUCKDB_MEMORY,
        threads=settings.DUCKDB_THREADS,
        wait=settings.STORE_WAIT,
        welcome=_welcome,
    )


at_open: list[Callable[[Cursor], None]] = []  # called with the store as it is opened, before anybody reads it


class DatabaseAway(StoreBusy):
    """Nobody can say whether the store is this database's, which does not answer. A run waits for that as for a busy store."""

    title = DatabaseUnusable.title


def _welcome(cursor: Cursor) -> None:
    global _welcomed
    try:
        _belongs(cursor)
        _welcomed = reading.store_id(cursor)
    except OperationalError as error:
        # The store that was this database's before it went away still is: a run that has it goes on.
        if reading.store_id(cursor) != _welcomed:
            refusal = DatabaseUnusable.of(error)
            if isinstance(refusal, DatabaseFull):
                raise
            raise DatabaseAway(refusal.message) from error
    if not _accepting.is_set():  # what is left to do may have been meant for another store
        for act in at_open:
            act(cursor)


_welcomed = ""  # the store that was last found to be this database's
_accepting = threading.Event()  # set while somebody says that store and database do belong together


def _belongs(cursor: Cursor) -> None:
    """Refuse a store whose numbers mean the data sets of another database: it would show their samples under other names.

    Raises:
        StoreForeign: the message says how to mend it.
    """
    own = reading.store_id(cursor)
    bound = StoreBinding.objects.values_list("store_id", flat=True).first()
    if bound == own:
        return
    held = set(reading.datasets_held(cursor))
    # One whose first import is still under way cannot be what the store has samples of.
    known = set(Dataset.objects.exclude(imported=None).values_list("pk", flat=True))
    # New on both sides, or brought along from a release that did not write it down.
    if not _accepting.is_set() and not (held <= known if bound is None else not held and not known):
        raise StoreForeign(
            f"The samples in {settings.DUCKDB_PATH} are not those of this database: one of the two was replaced or restored without "
            "the other. Restore both from one backup, or run “bind_store”, which says what else can be done."
        )
    StoreBinding.objects.update_or_create(pk=1, defaults={"store_id": own})


@contextmanager
def accepting_store() -> Iterator[None]:
    """Within this, a store that is opened becomes this database's, whatever it was."""
    sample_store().close()
    _accepting.set()
    try:
        yield
    finally:
        _accepting.clear()


# Registered before ``vlm.jobs`` registers the end of jobs, so called after it: their last batch needs the store.
@atexit.register
def _close() -> None:
    if sample_store.cache_info().currsize:
        sample_store().close()
