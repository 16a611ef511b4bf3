"""A client for programs: data sets, filters, tags, runs and reviews over HTTP, with a personal token.

    from datavisor.client import DataVisor

    visor = DataVisor("http://127.0.0.1:8000", token="dv_…")
    street = visor.dataset("street")
    street.autotag().wait()
    frame = street.to_dataframe(all="dark")

It needs Python alone: neither Django, nor the model; :meth:`Dataset.to_dataframe` needs pandas. A filter is written as in
the page's address: ``all="dark"``, ``none=["indoor", "day"]``, ``q="cam1"``, or whole, ``filter="all=dark&none=indoor"``.
"""

import csv
import io
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from datavisor.client.connection import (
    Connection,
    Refused,
    StillRunning,
    Unreachable,
    multipart,
    read,
    save,
    wait_until,
)
from datavisor.client.records import Image, Part, Tag, image_of, query_of, row_of

__all__ = [
    "DataVisor",
    "Dataset",
    "Edit",
    "Image",
    "Import",
    "Refused",
    "Review",
    "Run",
    "StillRunning",
    "Tag",
    "Unreachable",
]

PAGE = 1000  # images that are fetched at once


@dataclass(frozen=True, slots=True)
class Edit:
    """What an edit of tags did: to how many images, with which tag; ``id`` is ``None`` where there was nothing to change."""

    dataset: "Dataset" = field(repr=False)
    id: int | None
    changed: int
    tag: str
    said: str

    def undo(self) -> int:
        """Take it back, exactly; returns how many images changed."""
        if self.id is None:
            return 0
        return int(self.dataset._post(f"edits/{self.id}/undo")["changed"])


class DataVisor(Connection):
    """A server, and somebody's rights there.

    Args:
        url: where the page is.
        token: made on the page “Tokens”.
        timeout: seconds without an answer before it counts as unreachable.
    """

    def datasets(self) -> list["Dataset"]:
        """Return all data sets, by name."""
        return [Dataset(self, one["id"], one["name"]) for one in self.get("/")["datasets"]]

    def dataset(self, which: str | int) -> "Dataset":
        """Return the data set of that name, or of that number. Raises ``LookupError`` with the names that there are."""
        found = self.datasets()
        for one in found:
            if which in (one.name, one.id):
                return one
        raise LookupError(
            f"There is no data set {which!r}. There are: {', '.join(one.name for one in found) or 'none'}."
        )

    def import_folder(self, path: str | Path, name: str = "", *, format: str = "auto") -> "Import":
        """Start to import a folder that the server sees."""
        form = {"path": str(path), "name": name, "format": format, "action": "start"}
        return Import(self, int(self.post("/imports/new", form)["import"]))

    def run(self, number: int) -> "Run":
        return Run(self, number)

    def vocabulary(self) -> list[dict[str, Any]]:
        """Return the questions with their words, as they are asked."""
        dimensions: list[dict[str, Any]] = self.get("/vocabulary/")["dimensions"]
        return dimensions


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set of a server. Methods that take ``**parts`` take a filter, see the module."""

    visor: DataVisor = field(repr=False)
    id: int
    name: str

    def info(self) -> dict[str, Any]:
        """Return its folder, figures and newest run."""
        return self._get("settings")

    def count(self, filter: str = "", **parts: Part) -> int:
        """Return how many images a filter finds."""
        return int(self._get("", query_of(filter, parts, limit=1))["total"])

    def facets(self, filter: str = "", **parts: Part) -> dict[str, dict[str, int]]:
        """Return dimension → word → how many images of the filter have it, or would if the dimension were let go."""
        found = self._get("", query_of(filter, parts, limit=1))["facets"]["dimensions"]
        return {one["name"]: {word["value"]: word["count"] for word in one["words"]} for one in found}

    def distributions(self, *by: str, filter: str = "", **parts: Part) -> list[dict[str, Any]]:
        """Return how often each value is there among a filter's images; ``by`` names dimensions or fields, else all of them."""
        found: list[dict[str, Any]] = self._get("distributions", query_of(filter, parts, by=list(by)))["distributions"]
        return found

    def images(self, filter: str = "", *, order: str = "name", **parts: Part) -> Iterator[Image]:
        """Yield the images of a filter in an order, fetched page by page."""
        query, after = query_of(filter, parts, order=order, limit=PAGE), ""
        while True:
            page = self._get("cells", f"{query}&{urlencode({'after': after})}" if after else query)
            yield from map(image_of, page["samples"])
            if not (after := page["next"] or ""):
                return

    def image(self, number: int) -> dict[str, Any]:
        """Return all that is known of one image: tags, the model's answers in full, objects."""
        return self._get(f"samples/{number}/")

    def tag(self, tag: str, filter: str = "", *, ids: Iterable[int] = (), **parts: Part) -> Edit:
        """Give a tag to some images, by ``ids``, or to all of a filter."""
        return self._edit("add", tag, filter, ids, parts)

    def untag(self, tag: str, filter: str = "", *, ids: Iterable[int] = (), **parts: Part) -> Edit:
        """Take a tag away for good: no run gives it again."""
        return self._edit("remove", tag, filter, ids, parts)

    def confirm(self, tag: str, filter: str = "", *, ids: Iterable[int] = (), **parts: Part) -> Edit:
        """Make a tag of the model one's own, wherever it stands."""
        return self._edit("confirm", tag, filter, ids, parts)

    def autotag(self, filter: str = "", *, ids: Iterable[int] = (), **options: Any) -> "Run":
        """Start a run over the data set, a filter or some images.

        Args:
            filter: as in the page's address.
            ids: of images.
            options: ``scope`` (``missing``, ``all``, ``failed``), ``dimensions``, ``detail``, ``mode``, ``limit``,
                ``min_probability``, ``min_mass``, ``one_per_group``.
        """
        chosen = list(ids)
        within = "selection" if chosen else "filter" if filter else "dataset"
        form = options | {"within": within, "filter": filter, "ids": chosen}
        return Run(self.visor, int(self._post("auto-tag", form)["run"]))

    def runs(self) -> list[dict[str, Any]]:
        """Return the latest runs, newest first."""
        found: list[dict[str, Any]] = self._get("runs")["runs"]
        return found

    def review(self, dimension: str, size: int = 0) -> "Review":
        """Return the review of a dimension; with a ``size``, draw so many images for it."""
        if size:
            self._post("review/draw", {"dimension": dimension, "size": size})
        return Review(self, dimension)

    def import_labels(self, rows: Iterable[tuple[str, str, str]], *, random: bool = False) -> int:
        """Bring in what is right about images, as (file, dimension, word); all or nothing. Returns how many came in.

        Args:
            rows: the word is empty where it cannot be told.
            random: the images are a uniform random sample of the data set, so the labels count for its accuracy.

        Raises:
            Refused: rows that cannot be used, in the message.
        """
        table = io.StringIO(newline="")
        csv.writer(table).writerows([("file", "dimension", "value"), *rows])
        body, kind = multipart("labels.csv", table.getvalue().encode(), {"random": "1" if random else ""})
        with self.visor.open(f"/datasets/{self.id}/labels", body, kind) as answer:
            return int(read(answer)["labels"])

    def accuracy(self) -> list[dict[str, Any]]:
        """Return how right the tags are, dimension by dimension."""
        found: list[dict[str, Any]] = self._get("accuracy")["dimensions"]
        return found

    def export(self, format: str, target: str | Path, filter: str = "", **parts: Part) -> Path:
        """Write an export of a filter's images to a file; nothing is there before it is complete."""
        path, query = Path(target), query_of(filter, parts, format=format)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            with (
                self.visor.open(f"/datasets/{self.id}/export?{query}", accept="*/*") as answer,
                partial.open("wb") as file,
            ):
                save(answer, file)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    def to_dataframe(self, filter: str = "", **parts: Part) -> Any:
        """Return the images of a filter as a pandas ``DataFrame`` by id, with a column of words and one of probabilities per dimension."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError("A DataFrame needs pandas: pip install pandas.") from error
        dimensions = [one["name"] for one in self.visor.vocabulary()]
        rows = [row_of(image, dimensions) for image in self.images(filter, order="name", **parts)]
        columns = list(row_of(Image(0, "", "", "", None, None, False, ()), dimensions))
        return pandas.DataFrame(rows, columns=columns).set_index("id")

    def _edit(self, action: str, tag: str, filter: str, ids: Iterable[int], parts: Mapping[str, Part]) -> Edit:
        chosen, query = list(ids), query_of(filter, parts)
        if bool(chosen) == bool(query):
            raise ValueError("Say which images: ids, or a filter. The whole data set is q='', chosen on purpose.")
        form: dict[str, Any] = {"action": action, "tag": tag}
        form |= {"ids": chosen} if chosen else {"all": "true", "filter": query}
        done = self._post("tags", form)
        return Edit(self, done["edit"], done["changed"], done["tag"], done["done"])

    def _get(self, path: str, query: str = "") -> dict[str, Any]:
        return self.visor.get(f"/datasets/{self.id}/{path}", query)

    def _post(self, path: str, form: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self.visor.post(f"/datasets/{self.id}/{path}", form)


@dataclass(frozen=True, slots=True)
class Run:
    """A tagging run."""

    visor: DataVisor = field(repr=False)
    id: int

    def state(self) -> dict[str, Any]:
        """Return how it goes: ``status``, ``processed``, ``total``, ``tagged``, ``eta`` and more."""
        found: dict[str, Any] = self.visor.get(f"/runs/{self.id}/")["state"]
        return found

    def wait(
        self, *, timeout: float | None = None, progress: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> dict[str, Any]:
        """Wait until the run is over, and return how it ended.

        Args:
            timeout: seconds after which :class:`StillRunning` is raised.
            progress: called with the state at each look.

        Raises:
            Refused: it failed, was cancelled or interrupted.
        """
        state = wait_until(self.state, lambda now: not now["active"], timeout, f"run {self.id}", progress)
        if state["status"] != "completed":
            raise Refused(
                f"Run {self.id} is {state['status']}. {state['error']}".strip(), 409, "This run did not end well"
            )
        return state

    def cancel(self) -> None:
        """Ask it to stop after the batch at hand."""
        self.visor.post(f"/runs/{self.id}/cancel")

    def resume(self) -> "Run":
        """Go on where it stopped."""
        self.visor.post(f"/runs/{self.id}/resume")
        return self

    def revert(self) -> int:
        """Take back what it tagged; returns how many images changed."""
        return int(self.visor.post(f"/runs/{self.id}/revert")["changed"])


@dataclass(frozen=True, slots=True)
class Import:
    """An import that goes on in the server."""

    visor: DataVisor = field(repr=False)
    id: int

    def state(self) -> dict[str, Any]:
        return self.visor.get(f"/imports/{self.id}/")

    def wait(self, *, timeout: float | None = None) -> Dataset:
        """Wait until it is over, and return the data set. Raises ``Refused`` if it failed, ``StillRunning``."""
        state = wait_until(self.state, lambda now: now["status"] != "running", timeout, f"import {self.id}")
        if state["status"] != "completed":
            raise Refused(state["error"], 409, "This was not imported")
        return self.visor.dataset(int(state["dataset"]))


@dataclass(frozen=True, slots=True)
class Review:
    """Images that were drawn to be decided about, one after the other."""

    dataset: Dataset
    dimension: str

    def state(self) -> dict[str, Any]:
        """Return the words to choose from, the draw at hand, how far it is, and its next images."""
        return self.dataset._get("review", urlencode({"dimension": self.dimension}))

    def decide(self, batch: str, sample: int, word: str | None) -> dict[str, Any]:
        """Decide about an image: one of the words, or ``None`` for “cannot tell”. Returns the state after it."""
        form = {"dimension": self.dimension, "batch": batch, "sample": sample}
        form |= {"action": "unknown"} if word is None else {"action": "decide", "word": word}
        return self.dataset._post("review/decide", form)

    def each(self, decide: Callable[[int, str], str | None]) -> int:
        """Go through what is left of the draw: ``decide`` takes id and path and returns the word. Returns how many there were."""
        state, count = self.state(), 0
        while state["next"]:
            image = state["next"][0]
            state = self.decide(state["batch"], image["sample"], decide(image["sample"], image["path"]))
            count += 1
        return count
