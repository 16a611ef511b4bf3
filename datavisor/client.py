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
import http.client
import io
import json
import secrets
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import parse_qs, urlencode, urlsplit

PAGE = 1000  # images that are fetched at once
PATIENCE = 60.0  # seconds without an answer
TRIES = 5  # where the server says that trying again may help
POLL = 1.0  # seconds between two looks at a run

Part = str | int | float | Iterable[str | int]


class Refused(Exception):
    """The server does not do what it was asked; the message says why and what to do.

    Attributes:
        status: of the HTTP answer.
        title: what kind of refusal it is.
    """

    def __init__(self, message: str, status: int, title: str = "") -> None:
        super().__init__(message)
        self.status, self.title = status, title


class Unreachable(Exception):
    """No server answers at the address, or it stopped in the middle of an answer."""


class StillRunning(Exception):
    """A run or an import has not ended in the time that somebody would wait; it goes on."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag: whose word it is (``user`` or ``model``), of which dimension, and how probable the model found it.

    ``shared_from`` is the image of the same group about which the model was asked instead, if it was.
    """

    tag: str
    dimension: str | None
    source: Literal["user", "model"]
    probability: float | None
    run: int | None
    shared_from: int | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a data set; ``path`` is relative to the data set's folder.

    ``bytes`` is the file's size; ``taken`` (by the camera's clock) and ``camera`` are what the file says, if it does.
    """

    id: int
    path: str
    file_name: str
    split: str
    width: int | None
    height: int | None
    missing: bool
    tags: tuple[Tag, ...]
    bytes: int | None = None
    taken: datetime | None = None
    camera: str = ""

    @property
    def words(self) -> dict[str, str]:
        """Dimension → the image's word of it."""
        return {tag.dimension: tag.tag for tag in reversed(self.tags) if tag.dimension}

    @property
    def own_tags(self) -> tuple[str, ...]:
        """Tags that are no word of the vocabulary."""
        return tuple(tag.tag for tag in self.tags if not tag.dimension)


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


class DataVisor:
    """A server, and somebody's rights there.

    Args:
        url: where the page is.
        token: made on the page “Tokens”.
        timeout: seconds without an answer before it counts as unreachable.
    """

    def __init__(self, url: str, token: str, *, timeout: float = PATIENCE) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"“{url}” is no address like http://127.0.0.1:8000.")
        self.url, self._token, self.timeout = url.rstrip("/"), token, timeout

    def __repr__(self) -> str:
        return f"DataVisor({self.url!r})"

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

    # -- HTTP --------------------------------------------------------------------------------------------------------------
    def get(self, path: str, query: str = "") -> dict[str, Any]:
        """Ask an address of the server for its JSON. Raises ``Refused``, ``Unreachable``."""
        with self.open(f"{path}?{query}" if query else path) as answer:
            return _read(answer)

    def post(self, path: str, form: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a form to an address of the server. Raises ``Refused``, ``Unreachable``."""
        body = urlencode(form or {}, doseq=True).encode()
        with self.open(path, body, "application/x-www-form-urlencoded") as answer:
            return _read(answer)

    def open(self, path: str, body: bytes | None = None, kind: str = "", accept: str = "application/json") -> IO[bytes]:
        """Send a request and return the open answer; what the server asks to be tried again later is."""
        headers = {"Authorization": f"Bearer {self._token}", "Accept": accept}
        if body is not None:
            headers["Content-Type"] = kind
        request = urllib.request.Request(self.url + path, body, headers)
        for left in reversed(range(TRIES)):
            try:
                answer: IO[bytes] = _OPENER.open(request, timeout=self.timeout)
                return answer
            except urllib.error.HTTPError as error:
                with error:
                    # A POST that came to 503 may have been carried out by half; one that came to 429 was not looked at.
                    again = error.code == 429 or (error.code == 503 and body is None)
                    refused = _refused(error)
                    wait = error.headers.get("Retry-After", "")
                if not (again and left and wait.isdecimal()):
                    raise refused from None
                time.sleep(int(wait))
            except (urllib.error.URLError, OSError) as error:
                raise Unreachable(f"{self.url} does not answer: {getattr(error, 'reason', error)}.") from error
        raise AssertionError  # the last try has returned or raised


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
        return int(self._get("", _query(filter, parts, limit=1))["total"])

    def facets(self, filter: str = "", **parts: Part) -> dict[str, dict[str, int]]:
        """Return dimension → word → how many images of the filter have it, or would if the dimension were let go."""
        found = self._get("", _query(filter, parts, limit=1))["facets"]["dimensions"]
        return {one["name"]: {word["value"]: word["count"] for word in one["words"]} for one in found}

    def images(self, filter: str = "", *, order: str = "name", **parts: Part) -> Iterator[Image]:
        """Yield the images of a filter in an order, fetched page by page."""
        query, after = _query(filter, parts, order=order, limit=PAGE), ""
        while True:
            page = self._get("cells", f"{query}&{urlencode({'after': after})}" if after else query)
            yield from map(_image, page["samples"])
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
        body, kind = _multipart("labels.csv", table.getvalue().encode(), {"random": "1" if random else ""})
        with self.visor.open(f"/datasets/{self.id}/labels", body, kind) as answer:
            return int(_read(answer)["labels"])

    def accuracy(self) -> list[dict[str, Any]]:
        """Return how right the tags are, dimension by dimension."""
        found: list[dict[str, Any]] = self._get("accuracy")["dimensions"]
        return found

    def export(self, format: str, target: str | Path, filter: str = "", **parts: Part) -> Path:
        """Write an export of a filter's images to a file; nothing is there before it is complete."""
        path, query = Path(target), _query(filter, parts, format=format)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            with (
                self.visor.open(f"/datasets/{self.id}/export?{query}", accept="*/*") as answer,
                partial.open("wb") as file,
            ):
                _save(answer, file)
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
        rows = [_flat(image, dimensions) for image in self.images(filter, order="name", **parts)]
        columns = list(_flat(Image(0, "", "", "", None, None, False, ()), dimensions))
        return pandas.DataFrame(rows, columns=columns).set_index("id")

    def _edit(self, action: str, tag: str, filter: str, ids: Iterable[int], parts: Mapping[str, Part]) -> Edit:
        chosen, query = list(ids), _query(filter, parts)
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
        state = _wait(self.state, lambda now: not now["active"], timeout, f"run {self.id}", progress)
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
        state = _wait(self.state, lambda now: now["status"] != "running", timeout, f"import {self.id}")
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


# -- inside --------------------------------------------------------------------------------------------------------------
class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for what it is, a refusal: the token goes to the server that it is for, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _query(filter: str, parts: Mapping[str, Part], **more: Any) -> str:
    given: dict[str, Any] = {**parse_qs(filter.lstrip("?"), keep_blank_values=True)}
    for key, value in parts.items():
        given[key] = value if isinstance(value, str | int | float) else list(value)
    return urlencode(given | more, doseq=True)


def _image(one: Mapping[str, Any]) -> Image:
    tags = tuple(
        Tag(tag["tag"], tag["dimension"], tag["source"], tag["probability"], tag["run"], tag.get("shared_from"))
        for tag in one["tags"]
    )
    return Image(
        id=one["id"],
        path=one["path"],
        file_name=one["file_name"],
        split=one["split"],
        width=one["width"],
        height=one["height"],
        missing=one["missing"],
        tags=tags,
        bytes=one["bytes"],
        taken=datetime.fromisoformat(one["taken"]) if one["taken"] else None,
        camera=one["camera"] or "",
    )


def _flat(image: Image, dimensions: Iterable[str]) -> dict[str, Any]:
    """Return an image as one row of a table."""
    row: dict[str, Any] = {"id": image.id, "path": image.path, "split": image.split}
    row |= {"width": image.width, "height": image.height}
    chance = {tag.dimension: tag.probability for tag in reversed(image.tags)}
    for name in dimensions:
        row |= {name: image.words.get(name), f"{name}_probability": chance.get(name)}
    return row | {"own_tags": list(image.own_tags)}


def _wait(
    look: Callable[[], dict[str, Any]],
    over: Callable[[dict[str, Any]], bool],
    timeout: float | None,
    what: str,
    progress: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    began = time.monotonic()
    while True:
        state = look()
        progress(state)
        if over(state):
            return state
        if timeout is not None and time.monotonic() - began > timeout:
            raise StillRunning(f"{what.capitalize()} has not ended in {timeout:g} s; it goes on.")
        time.sleep(POLL)


def _read(answer: IO[bytes]) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.load(answer)
    except (ValueError, OSError) as error:
        raise Unreachable(f"The answer is no JSON or broke off: {error}.") from error
    return value


def _save(answer: IO[bytes], file: IO[bytes]) -> None:
    """Write an answer to a file, whole; what breaks off is not taken for the whole."""
    try:
        shutil.copyfileobj(answer, file)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"The download broke off: {error}.") from error
    length = getattr(answer, "headers", {}).get("Content-Length")
    if length is not None and file.tell() != int(length):
        raise Unreachable(f"The download broke off after {file.tell():,} of {int(length):,} bytes.")


def _refused(error: urllib.error.HTTPError) -> Refused:
    try:
        said = json.load(error)
        if problems := said.get("problems"):
            return Refused(" ".join(problems[:10]), error.code, "These labels cannot be used")
        return Refused(said["error"], error.code, said["title"])
    except (ValueError, KeyError, AttributeError, TypeError, OSError):
        return Refused(f"The server answered {error.code} {error.reason}.", error.code)


def _multipart(name: str, content: bytes, fields: Mapping[str, str]) -> tuple[bytes, str]:
    """Return the body of a form with one file, and its media type."""
    mark = secrets.token_hex(16)
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/csv\r\n\r\n'
    )
    return b"".join(
        [*parts, head.encode(), content, f"\r\n--{mark}--\r\n".encode()]
    ), f"multipart/form-data; boundary={mark}"
