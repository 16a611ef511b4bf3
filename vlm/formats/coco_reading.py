"""Records of samples from what COCO JSONs list: where each image lies, which split it is of, and its annotations."""

import json
import posixpath
import re
from array import array
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlm.formats.coco_spool import ANNOTATION_DTYPE, NO_ID, Listed, Spool
from vlm.formats.files import FOLDER, LINKED_FOLDER, OUTSIDE, Elsewhere, Files, Refused
from vlm.formats.masks import DESCRIBING
from vlm.formats.matching import Ambiguous, split_in, split_name
from vlm.formats.records import Annotation, ReportSkip, SampleRecord, distinct_categories, printable
from vlm.formats.upright import turn

_FAR = 1e9  # pixels; beyond it a number is no coordinate
TASK = re.compile(r"^(?:instances|person_keypoints|keypoints|densepose|stuff|captions|image_info)_(.+)$", re.IGNORECASE)


# An image that a JSON lists, and the file that it is: path, key of its content, entry, split, annotations, the JSON.
_Found: TypeAlias = tuple[str, str, Listed, str, tuple[Annotation, ...], str]


class Reading:
    """One pass over what the JSONs list.

    Images that lie where their JSON says come first, in its order. Then come those whose paths are of another machine:
    they are looked for by the ends of their paths, all at once, and never take a file that another entry names itself.
    """

    def __init__(self, files: Files, spools: list[Spool], report: ReportSkip) -> None:
        self._files = files
        self._spools = spools
        self._report = report
        self._seen: set[int] = set()  # hashes: the paths themselves would take several times the memory
        self._lookups: list[_AnnotationLookup] = []
        self._missing: list[array[int]] = []  # places in each spool of the images that were not found
        self._splits: list[str] = []
        self._split_of: dict[str, str] = {}  # of folders
        self._ambiguous: list[frozenset[int]] = []  # ids of each spool that several images have

    def records(self) -> Iterator[SampleRecord]:
        yield from self._files.each(self._found(), self._record)
        for spool, lookup in zip(self._spools, self._lookups, strict=True):
            if lookup.orphans:
                text = f"Annotations that belong to images which it does not list: {lookup.orphans:,}."
                self._report(spool.path, text)
            if lookup.broken_boxes:
                text = f"Boxes that are none (negative, endless or no numbers), left out: {lookup.broken_boxes:,}."
                self._report(spool.path, text)

    def _found(self) -> Iterator[_Found]:
        for spool in self._spools:
            for reason in spool.refused:
                self._report(spool.path, reason)
            self._lookups.append(_AnnotationLookup(spool))
            self._ambiguous.append(_ids_of_several(spool))
            yield from self._listed(spool)
        if any(self._missing):
            yield from self._elsewhere()

    def _listed(self, spool: Spool) -> Iterator[_Found]:
        """Yield the images that lie where the JSON says."""
        bases, split = image_folders(self._files, spool.path)
        missing: array[int] = array("q")
        self._missing.append(missing)
        self._splits.append(split)
        for place, image, annotations in self._images(spool, self._lookups[-1]):
            if spool.keys[place] in self._ambiguous[-1]:
                self._report(
                    image[1],
                    f"Its id “{image[0]}” is also that of another image in {spool.path}, so it cannot be told which "
                    "annotations are its own: it comes without.",
                )
                annotations = ()
            try:
                found = locate(self._files, bases, image[1])
            except Refused as refused:
                self._report(image[1], str(refused))
                continue
            if found is None:
                missing.append(place)
                continue
            path, key = found
            if hash(path) in self._seen:
                self._report(
                    path, f"It is listed more than once; the entry with id “{image[0]}” in {spool.path} is left out."
                )
                continue
            self._seen.add(hash(path))
            yield path, key, image, split or self._split_in(path.rpartition("/")[0]), annotations, spool.path

    def _elsewhere(self) -> Iterator[_Found]:
        """Yield the images whose written paths lead nowhere, but end like one file."""
        elsewhere = Elsewhere(self._files, (image[1] for _, _, image, _ in self._not_found()))
        claims: dict[str, int] = {}  # hash of the name that claims a file, 0 where different ones do
        for _, _, image, _ in self._not_found():
            try:
                path = elsewhere.path(image[1])
            except Ambiguous:
                continue
            if path is not None:
                name = hash(image[1])
                claims[path] = name if claims.get(path, name) == name else 0
        for index, spool, image, annotations in self._not_found():
            written = image[1]
            try:
                path = elsewhere.path(written)
                if path is None:
                    away = _is_elsewhere(written)
                    raise Refused(OUTSIDE if away else "The image is listed in the JSON, but the file is missing.")
                if hash(path) in self._seen:
                    raise Refused(
                        f"Its name fits {path}, which is listed already; the entry with id “{image[0]}” is left out."
                    )
                if not claims[path]:
                    raise Refused(f"Its name fits {path}, but so do other entries; it is not clear which one is meant.")
                key = self._files.image(path)
                if key is None:
                    raise Refused("The file is missing.")
            except (Refused, Ambiguous) as refused:
                self._report(written, str(refused))
                continue
            self._seen.add(hash(path))
            split = self._splits[index] or self._split_in(path.rpartition("/")[0])
            yield path, key, image, split, annotations, spool.path

    def _not_found(self) -> Iterator[tuple[int, Spool, Listed, tuple[Annotation, ...]]]:
        for index, (spool, missing) in enumerate(zip(self._spools, self._missing, strict=True)):
            if not missing:
                continue
            wanted = iter(missing)
            following = next(wanted)
            for place, image, annotations in self._images(spool, self._lookups[index]):
                if place == following:
                    unclear = spool.keys[place] in self._ambiguous[index]
                    yield index, spool, image, () if unclear else annotations
                    following = next(wanted, -1)

    def _images(
        self, spool: Spool, lookup: "_AnnotationLookup"
    ) -> Iterator[tuple[int, Listed, tuple[Annotation, ...]]]:
        """Yield the images of a spool with their places and annotations."""
        spool.images.seek(0)
        place = 0
        while line := spool.images.readline():
            # Somebody may move the file's position between two lines, but not within one batch.
            position = spool.images.tell()
            batch: list[Listed] = [
                (image[0], image[1].replace("\\", "/"), image[2], image[3]) for image in json.loads(line)
            ]
            keys = spool.keys[place : place + len(batch)]
            for image, annotations in zip(batch, lookup.of(keys), strict=True):
                yield place, image, annotations
                place += 1
            spool.images.seek(position)

    def _record(self, found: _Found) -> SampleRecord:
        """Return the record of an image; this looks at its head, and is called in threads where that takes long."""
        path, key, (external_id, name, width, height), split, annotations, source = found
        width, height, annotations = turn(self._files, path, width, height, annotations)
        return SampleRecord(
            path=path,
            file_name=name,
            split=split,
            width=width,
            height=height,
            categories=distinct_categories(annotations),
            annotations=annotations,
            content_key=key,
            external_id=printable(external_id),
            source_file=source,
        )

    def _split_in(self, folder: str) -> str:
        """Return the split that a folder's name stands for; none where other folders beside it are no splits: then it is a class."""
        if folder not in self._split_of:
            split = split_in(folder)
            if split and (beside := _class_beside(self._files, folder)):
                split = ""
                self._report(
                    folder,
                    f"Its name could be a split's, but “{beside}” beside it is none: it is taken for a class, and stands for no split.",
                )
            self._split_of[folder] = split
        return self._split_of[folder]


def _class_beside(files: Files, folder: str) -> str:
    """Return a folder of images beside the one split that a path names, if that is the only split there; else ''."""
    parts = folder.split("/")
    place = next(index for index, part in enumerate(parts) if split_name(part))
    parent = "/".join(parts[:place])
    try:
        names = [name for name, kind in files.entries(parent) if kind in (FOLDER, LINKED_FOLDER)]
    except Refused:
        return ""
    others = [name for name in names if not split_name(name) and name.lower() not in DESCRIBING]
    if place != len(parts) - 1 or len({split_name(name) for name in names} - {""}) > 1:
        return ""
    return next((name for name in others if files.has_images(f"{parent}/{name}" if parent else name)), "")


def _is_elsewhere(name: str) -> bool:
    """Tell whether a path leads out of the folder: absolute, an address, or upward."""
    return name.startswith(("/", "../")) or "/../" in name or bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", name))


def _ids_of_several(spool: Spool) -> frozenset[int]:
    """Return the hashes of the ids that more than one file name has."""
    keys, names = np.frombuffer(spool.keys, np.int64), np.frombuffer(spool.names, np.int64)
    if not len(keys):
        return frozenset()
    order = np.lexsort((names, keys))
    keys, names = keys[order], names[order]
    several = (keys[1:] == keys[:-1]) & (names[1:] != names[:-1])
    return frozenset(keys[1:][several].tolist()) - {NO_ID}


class _AnnotationLookup:
    """The annotations of a spool, by image."""

    def __init__(self, spool: Spool) -> None:
        self._rows: NDArray[Any] = np.empty(0, ANNOTATION_DTYPE)
        if spool.annotation_count:
            # A plain array over the mapped file: memmap's own indexing is slow.
            mapped = np.memmap(spool.annotations, ANNOTATION_DTYPE, "r", shape=(spool.annotation_count,))
            self._rows = np.asarray(mapped)
        keys = np.ascontiguousarray(self._rows["image"])
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._found = np.zeros(len(keys), dtype=np.bool_)
        self._names = [
            spool.categories.get(identity, printable(f"category {identity}")) for identity in spool.category_ids
        ]
        self._names.append("")  # index -1: an annotation without category

    def of(self, images: "array[int]") -> Iterator[tuple[Annotation, ...]]:
        """Yield the annotations of each image, given by the hash of its id, in the order of the JSON."""
        wanted = np.frombuffer(images, dtype=np.int64)
        starts = np.searchsorted(self._keys, wanted, side="left")
        counts = np.searchsorted(self._keys, wanted, side="right") - starts
        # The places of all annotations of the batch in sorted order: each image's run, one behind the other.
        places = np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        self._found[places] = True
        annotations = map(self._annotation, self._rows[self._order[places]].tolist())
        for count in counts.tolist():
            yield tuple(islice(annotations, count)) if count else ()

    @property
    def broken_boxes(self) -> int:
        """How many boxes are there and are none."""
        if not len(self._rows):
            return 0
        box = np.stack([self._rows[name] for name in ("x", "y", "width", "height")])
        with np.errstate(invalid="ignore"):
            good = (np.abs(box) < _FAR).all(axis=0) & (box[2] >= 0) & (box[3] >= 0)
        return int(np.count_nonzero(~good & ~np.isnan(box).all(axis=0)))

    @property
    def orphans(self) -> int:
        """How many annotations no image has asked for."""
        return int(np.count_nonzero(~self._found))

    def _annotation(self, row: tuple[int, int, float, float, float, float]) -> Annotation:
        _, category, x, y, width, height = row
        # NaN fails every comparison.
        known = -_FAR < x < _FAR and -_FAR < y < _FAR and 0 <= width < _FAR and 0 <= height < _FAR
        return Annotation(self._names[category], (x, y, width, height) if known else None)


def image_folders(files: Files, path: str) -> tuple[list[str], str]:
    """Return the folders in which the images of a JSON may lie, likeliest first, and the split that it stands for."""
    folder = posixpath.dirname(path)
    stem = posixpath.splitext(posixpath.basename(path))[0]
    match = TASK.match(stem)
    named = match[1] if match else stem
    split = split_name(named) or split_name(posixpath.basename(folder))
    above = {folder, posixpath.dirname(folder), ""}
    bases = [folder]
    for parent in sorted(above, key=len, reverse=True):
        for child in (named, f"images/{named}", split, f"images/{split}", "images", "JPEGImages", "data", ""):
            candidate = posixpath.join(parent, child).rstrip("/")
            if candidate not in bases and (not candidate or files.is_folder(candidate)):
                bases.append(candidate)
    return bases, split


def locate(files: Files, bases: list[str], name: str) -> tuple[str, str] | None:
    """Return the path and content key of an image, ``None`` where it is in none of the folders.

    The folder that had it is asked first next time.

    Raises:
        Refused: it is there, but not to be used.
    """
    for index, base in enumerate(bases):
        try:
            path = files.relative(base, name)
        except Refused:
            continue
        key = files.image(path)
        if key is not None:
            if index:
                bases.insert(0, bases.pop(index))
            return path, key
    return None
