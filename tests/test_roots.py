"""Roots: what a URL may be, that nothing outside is read, and what becomes of errors. Without a server, or with a lying one."""

import hashlib
import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore
from PIL import Image

from tests.buckets import patient
from tests.children import ROOT
from tests.hostile_store import Answer, listing, refusal, store_that
from tests.images import make_images
from tests.ports import reserved
from vlm.errors import RootAway, RootRefused
from vlm.formats import ImportFailed, scan
from vlm.formats.object_files import ObjectFiles
from vlm.imaging import ImageUnreadable, file_digest, header
from vlm.roots import GivenUp, LocalRoot, ObjectRoot, ObjectURL, Patience, objects, root_of, waiting
from vlm.scoring.worker import unseen

SECRET = "a-secret-that-nobody-may-read"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    store = MemoryStore()
    monkeypatch.setattr(objects, "open_store", lambda url: store)
    return store


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try nothing again, so that what is away is so at once; but wait for an answer as long as a busy machine takes."""
    monkeypatch.setattr(objects, "RETRIES", {"max_retries": 0})
    patient(monkeypatch)


# -- URLs --------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("s3://photos", "s3://photos"),
        ("s3://photos/", "s3://photos"),
        (" S3://Photos/Street/2024/ ", "s3://photos/Street/2024"),
        ("gs://photos/a b%20c#d", "gs://photos/a b%20c#d"),
        ("az://container/ü", "az://container/ü"),
    ],
)
def test_a_url_is_kept_in_one_way(written: str, kept: str) -> None:
    root = root_of(written)
    assert (str(root), root) == (kept, root_of(kept))
    assert root_of(str(root)) == root


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.org/photos", "not read from “http://”"),
        ("file:///etc", "not read from “file://”"),
        ("memory:///x", "not read from"),
        ("s3://", "no name of a bucket"),
        ("s3:///etc", "no name of a bucket"),
        ("s3://b", "no name of a bucket"),
        ("s3://bad bucket/x", "no name of a bucket"),
        ("s3://photos/a//b", "no empty part"),
        ("s3://photos//a", "no empty part"),
        ("s3://photos/a//", "no empty part"),
        ("s3://photos/../other", "“.” or “..”"),
        ("s3://photos/a/./b", "“.” or “..”"),
        ("s3://photos/a\nb", "control character"),
        ("s3://photos/\udcff", "control character"),
        ("s3://photos/" + "a" * 5000, "4,096 characters"),
    ],
)
def test_what_is_no_url_of_images_is_refused(url: str, why: str) -> None:
    with pytest.raises(RootRefused, match=why):
        root_of(url)


@pytest.mark.parametrize(
    "url",
    [
        f"s3://key:{SECRET}@photos/x",
        f"s3://{SECRET}@photos",
        f"s3://photos/x?X-Amz-Signature={SECRET}",
        f"s3://photos:{SECRET}/x",
    ],
)
def test_what_may_be_a_secret_is_not_repeated(url: str) -> None:
    with pytest.raises(RootRefused, match="environment") as refused:
        root_of(url)
    assert SECRET not in str(refused.value)


def test_below_goes_by_whole_parts() -> None:
    allowed = ObjectURL.parse("s3://photos/street")
    inside = ("s3://photos/street", "s3://photos/street/", "S3://PHOTOS/street/2024")
    outside = (
        "s3://photos",
        "s3://photos/street-old",
        "s3://photos/Street",
        "s3://other/street",
        "gs://photos/street",
        "s3://photosx",
    )
    assert all(ObjectURL.parse(url).is_below(allowed) for url in inside)
    assert not any(ObjectURL.parse(url).is_below(allowed) for url in outside)


def test_a_path_stays_a_path(tmp_path: Path) -> None:
    assert root_of(str(tmp_path)) == LocalRoot(tmp_path)
    assert root_of("C:/photos") == LocalRoot("C:/photos")


# -- nothing outside is read ---------------------------------------------------------------------------------------------------
OUTSIDE = ("../other/x.jpg", "a/../../x.jpg", "/x.jpg", "//x.jpg", "a//x.jpg", "./x.jpg", "", "a/", "..", "a\0b.jpg")


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_out_of_a_prefix(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(url: ObjectURL) -> MemoryStore:
        raise AssertionError("the store was asked")

    monkeypatch.setattr(objects, "open_store", never)
    root = root_of("s3://photos/street")
    asks: list[Callable[[str], object]] = [root.source, root.read, root.size, lambda path: root.look(path, header)]
    for ask in asks:
        with pytest.raises(ImageUnreadable, match="leads out"):
            ask(path)
    assert not root.has(path)


def test_keys_are_asked_for_as_they_are(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """Nothing is decoded on the way, so that no %2e%2e becomes a way up."""
    asked: list[str] = []

    def answer(path: str) -> Answer:
        asked.append(path)
        return 200, b"abc"

    with store_that(answer) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        root = root_of("s3://photos/street")
        for path in ("%2e%2e/x.jpg", "a b#c?d.jpg", "ü.jpg", "..a/b..jpg"):
            assert root.read(path) == b"abc"
    assert asked == [
        "/photos/street/%252e%252e/x.jpg",
        "/photos/street/a%20b%23c%3Fd.jpg",
        "/photos/street/%C3%BC.jpg",
        "/photos/street/..a/b..jpg",
    ]


def test_a_lying_store_gets_nothing_from_outside_read(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """Keys beside the prefix that a store lists all the same are no files of the data set."""
    asked: list[str] = []

    def answer(path: str) -> Answer:
        asked.append(path)
        return listing("street/a.jpg", "other/secret.jpg", "street-old/b.jpg") if "list-type" in path else (200, b"abc")

    with store_that(answer) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        root = ObjectRoot(ObjectURL.parse("s3://photos/street"))
        for path in [entry.path for chunk in root.listing() for entry in chunk]:
            root.read(path)
    assert all("/photos/street/" in path for path in asked if "list-type" not in path)


@pytest.mark.parametrize("key", ["street/a//b.jpg", "street/../b.jpg", "street/./b.jpg"])
def test_keys_that_no_path_can_be_are_told(key: str, monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    with store_that(lambda path: listing("street/a.jpg", key)) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        with pytest.raises(RootRefused, match="Rename it, or give a prefix beside it"):
            scan("s3://photos/street")


# -- what becomes of errors ------------------------------------------------------------------------------------------------------
@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"{SECRET}-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"{SECRET}-token")


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (refusal(503, "SlowDown", SECRET), RootAway, "answers with 503"),
        (refusal(500, "InternalError", SECRET), RootAway, "answers with 500"),
        (refusal(400, "ExpiredToken", SECRET), RootAway, "answers with 400"),
        (refusal(403, "SignatureDoesNotMatch", SECRET), RootAway, "refuses the credentials"),
        (refusal(401, "Unauthorized", SECRET), RootAway, "refuses the credentials"),
        (refusal(404, "NoSuchKey", SECRET), ImageUnreadable, "not there"),
        (refusal(416, "InvalidRange", SECRET), ImageUnreadable, "empty"),
    ],
)
@pytest.mark.usefixtures("credentials", "quick")
def test_errors_say_what_to_do_and_no_secret(
    answer: Answer,
    kind: type[Exception],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with store_that(lambda path: answer) as endpoint, caplog.at_level(logging.DEBUG):
        # Even an endpoint that holds a password is not repeated.
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.replace("http://", f"http://user:{SECRET}@"))
        with pytest.raises(kind, match=why) as caught:
            root_of("s3://photos/street").look("a.jpg", file_digest)
        logging.getLogger("vlm").error("told", exc_info=caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in caplog.text


@pytest.mark.usefixtures("credentials", "quick")
def test_nobody_at_an_endpoint_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with reserved() as unheard:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unheard.getsockname()[1]}")
        for ask in (lambda: root_of("s3://photos/street").read("a.jpg"), lambda: scan("s3://photos/street")):
            with pytest.raises(RootAway, match="nobody answers there"):
                ask()


@pytest.mark.usefixtures("quick")
def test_one_object_that_is_denied_is_that_object_s_affair(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(path: str) -> Answer:
        return listing("street/a.jpg") if "list-type" in path else refusal(403, "AccessDenied")

    with store_that(answer) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        with pytest.raises(ImageUnreadable, match="give them the right"):
            root_of("s3://photos/street").read("a.jpg")


@pytest.mark.parametrize(
    ("url", "endpoint", "variables", "asked"),
    [
        ("gs://photos/street", "GOOGLE_BASE_URL", {"GOOGLE_SKIP_SIGNATURE": "true"}, "/photos/street%2Fa%20b%2Ejpg"),
        (
            "az://photos/street",
            "AZURE_STORAGE_ENDPOINT",
            {"AZURE_STORAGE_ACCOUNT_NAME": "tests", "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"},
            "/photos/street/a%20b.jpg",
        ),
    ],
)
@pytest.mark.usefixtures("quick")
def test_the_other_stores_are_asked_and_understood_alike(
    url: str, endpoint: str, variables: dict[str, str], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in: what is asked for, and what becomes of errors."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    paths: list[str] = []
    answers: list[Answer] = [(200, b"abc"), refusal(404, "X"), refusal(503, "X")]

    def answer(path: str) -> Answer:
        paths.append(path)
        return answers.pop(0)

    with store_that(answer) as where:
        monkeypatch.setenv(endpoint, where)
        root = root_of(url)
        assert root.read("a b.jpg") == b"abc"
        with pytest.raises(ImageUnreadable, match="not there"):
            root.read("a b.jpg")
        with pytest.raises(RootAway, match="answers with 503"):
            root.read("a b.jpg")
    assert paths == 3 * [asked]


def test_an_environment_that_is_not_enough_is_told() -> None:
    with pytest.raises(RootRefused, match=r"az:// \(AZURE_…\) is not enough"):
        root_of("az://photos/street").probe()


@pytest.mark.usefixtures("quick")
def test_a_bucket_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with store_that(lambda path: refusal(404, "NoSuchBucket")) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        with pytest.raises(RootRefused, match="no bucket “photos”"):
            scan("s3://photos/street")


def test_without_obstore_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(RootRefused, match=r'pip install "datavisor\[objects\]"'):
        scan("s3://photos/street")


@pytest.mark.usefixtures("credentials")
def test_a_root_travels_without_credentials() -> None:
    root = root_of("s3://photos/street")
    with pytest.raises(ImageUnreadable):
        root.source("../x")
    content = pickle.dumps(root)
    assert SECRET.encode() not in content
    assert pickle.loads(content) == root


@pytest.mark.usefixtures("quick")
def test_a_worker_says_whether_it_may_read_a_bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that is refused does not fit; one that gets no answer may wait for it, as a run here does."""
    assert unseen(str(tmp_path)) == ""
    assert "no folder" in unseen(str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    for answer, why in (
        (listing("street/a.jpg"), ""),
        (refusal(403, "AccessDenied"), "refuses the credentials"),
        (refusal(503, "SlowDown"), ""),
    ):
        with store_that(lambda path, said=answer: said) as endpoint:  # type: ignore[misc]
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
            told = unseen("s3://photos/street")
            assert (bool(told), why in told) == (bool(why), True)
    away = pickle.loads(pickle.dumps(RootAway("It is away.")))
    assert (type(away), away.message) == (RootAway, "It is away.")


# -- reading -----------------------------------------------------------------------------------------------------------------------
def test_an_object_is_read_like_the_file(tmp_path: Path, bucket: MemoryStore) -> None:
    for path in make_images(tmp_path / "photos", 3).iterdir():
        obstore.put(bucket, path.name, path.read_bytes())
    here, there = LocalRoot(tmp_path / "photos"), root_of("s3://photos")
    for name in ("000.jpg", "001.jpg", "002.jpg"):
        assert there.read(name) == here.read(name)
        assert there.size(name) == here.size(name)
        assert there.look(name, header) == here.look(name, header)
        assert there.look(name, file_digest) == hashlib.sha256(here.read(name)).hexdigest()
        assert (there.has(name), there.has("no.jpg")) == (True, False)


def test_more_bytes_than_a_picture_has_are_not_read(bucket: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    obstore.put(bucket, "a.jpg", b"12345")
    root = root_of("s3://photos")
    with pytest.raises(ImageUnreadable, match="5 bytes, more than the 4"):
        root.read("a.jpg", most=4)
    assert root.read("a.jpg", most=5) == b"12345"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000"])
def test_heads_are_read_without_the_rest_where_a_format_allows(format: str, bucket: MemoryStore) -> None:
    """A JPEG's is at its beginning; a TIFF's, and a PNG's EXIF, may be at its end. All come out, in few requests."""
    encoded = BytesIO()
    Image.effect_noise((900, 700), 90).convert("RGB").save(encoded, format)
    obstore.put(bucket, "a.bin", encoded.getvalue())
    got: list[int] = []
    root = ObjectRoot(ObjectURL.parse("s3://photos"))
    part = root.part

    def counted(path: str, start: int, end: int, **options: str | None) -> object:
        got.append(min(end, len(encoded.getvalue())) - start)
        return part(path, start, end, **options)

    root.part = counted  # type: ignore[assignment, method-assign]
    assert root.look("a.bin", header)[0] == (900, 700)
    assert len(got) <= 12
    if format in ("JPEG", "GIF"):
        assert sum(got) <= objects.HEAD_BYTES < len(encoded.getvalue())


def test_an_object_that_changes_while_it_is_read_is_told(bucket: MemoryStore) -> None:
    obstore.put(bucket, "a.bin", bytes(100_000))
    file = ObjectRoot(ObjectURL.parse("s3://photos")).open("a.bin", window=1000)
    assert file.read(10) == bytes(10)
    obstore.put(bucket, "a.bin", b"1" * 100_000)
    with pytest.raises(ImageUnreadable, match="changed while it was read"):
        file.read(5000)


def test_places_in_an_object_are_those_of_a_file(tmp_path: Path, bucket: MemoryStore) -> None:
    content = bytes(range(256)) * 40
    (tmp_path / "a.bin").write_bytes(content)
    obstore.put(bucket, "a.bin", content)
    with (
        (tmp_path / "a.bin").open("rb") as here,
        ObjectRoot(ObjectURL.parse("s3://photos")).open("a.bin", window=64) as there,
    ):
        for offset, whence in ((0, 0), (5000, 0), (-10, 2), (-5, 1), (3, 0), (20_000, 0), (0, 2)):
            assert there.seek(offset, whence) == here.seek(offset, whence)
            assert there.read(100) == here.read(100)
            assert there.tell() == here.tell()
        there.seek(10_000)
        assert there.read() == content[10_000:]


# -- the listing --------------------------------------------------------------------------------------------------------------------
def test_one_listing_answers_for_all_images(bucket: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many images, an import of a folder makes one listing, and asks for no image by itself."""
    for number in range(50):
        obstore.put(bucket, f"{'train' if number % 2 else 'val'}/cat/{number:02}.jpg", b"x")
    listings: list[int] = []
    own = ObjectRoot.listing

    def counted(self: ObjectRoot) -> Iterator[list[objects.Listed]]:
        listings.append(1)
        return own(self)

    monkeypatch.setattr(ObjectRoot, "listing", counted)
    for name in ("part", "status", "read", "open"):
        monkeypatch.delattr(ObjectRoot, name)
    found = scan("s3://photos", "folder")
    records = list(found)
    assert (len(records), len(listings), found.skips) == (50, 1, [])
    assert {(record.split, record.categories) for record in records} == {("train", ("cat",)), ("val", ("cat",))}
    assert {record.content_key.partition("-")[0] for record in records} == {"1"}


def test_a_listing_takes_no_memory_for_its_keys() -> None:
    """In a process of its own: a quarter of a million names alone would take more than all of this may."""
    code = (
        "from pathlib import Path; from itertools import islice\n"
        "from vlm.formats.object_files import Listing; from vlm.roots.objects import Listed\n"
        "memory = lambda what: int(Path('/proc/self/status').read_text().partition(what)[2].split()[0]) // 1024\n"
        "before = memory('VmRSS:'); name = 'a folder/of images/{:03}/{:050}.jpg'.format\n"
        "made = (Listed(name(n // 1000, n), n, 'etag', 0.0) for n in range(250_000))\n"
        "listing = Listing(iter(lambda: list(islice(made, 5000)), []))\n"
        "found = sum(1 for folder in range(250) for _ in listing.entries(f'a folder/of images/{folder:03}'))\n"
        "print(memory('VmHWM:') - before, found, listing.status(name(77, 77_123)).size)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    megabytes, *found = map(int, out.stdout.split())
    assert found == [250_000, 77_123]
    assert megabytes < 40


def test_empty_objects_in_place_of_folders_are_no_files(bucket: MemoryStore) -> None:
    for key in ("train", "train/a.jpg", "empty"):
        obstore.put(bucket, key, b"x" if key.endswith(".jpg") else b"")
    found = scan("s3://photos")
    assert [record.path for record in found] == ["train/a.jpg"]
    assert [skip.path for skip in found.skips] == ["empty"]


def test_a_content_is_known_by_size_and_etag(bucket: MemoryStore) -> None:
    obstore.put(bucket, "a.jpg", b"one")
    files = ObjectFiles(ObjectRoot(ObjectURL.parse("s3://photos")))
    key = files.image("a.jpg")
    assert key is not None
    assert key.startswith("3-")
    obstore.put(bucket, "a.jpg", b"two")
    assert ObjectFiles(files.root).image("a.jpg") not in (key, None)


def test_an_empty_prefix_has_no_image(bucket: MemoryStore) -> None:
    with pytest.raises(ImportFailed, match="There is no image in “s3://photos/none”"):
        scan("s3://photos/none")


# -- waiting -------------------------------------------------------------------------------------------------------------------------
class Flaky:
    """A root that is away as long as a test wants."""

    def __init__(self, away: int, answers: bool = False) -> None:
        self.away, self.answers, self.asked = away, answers, 0

    def read(self) -> str:
        self.asked += 1
        if self.asked <= self.away:
            raise RootAway("It is away.")
        return "read"

    def probe(self) -> None:
        if not self.answers:
            raise RootAway("It is away.")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.001)


@pytest.mark.usefixtures("impatient")
def test_what_is_away_is_waited_for() -> None:
    root, told = Flaky(6), list[str]()
    patiently = Patience(root, stop=threading.Event(), seconds=1000, tell=told.append)  # type: ignore[arg-type]
    assert patiently(root.read) == "read"
    assert patiently(root.read) == "read"
    assert told == ["It is away. Waiting for it.", ""]


class Returning(Flaky):
    """A root that comes back in the very moment in which somebody asks whether it is there."""

    def probe(self) -> None:
        super().probe()
        self.away = 0


@pytest.mark.usefixtures("impatient")
def test_a_place_that_comes_back_between_two_looks_costs_no_file() -> None:
    root, told = Returning(10**9, answers=True), list[str]()
    patiently = Patience(root, stop=threading.Event(), seconds=1000, tell=told.append)  # type: ignore[arg-type]
    assert patiently(root.read) == "read"
    assert root.asked == waiting.TRIES + 1
    assert told == ["It is away. Waiting for it.", ""]


@pytest.mark.usefixtures("impatient")
def test_waiting_has_an_end() -> None:
    root = Flaky(10**9)
    with pytest.raises(RootAway, match="It was away for"):
        Patience(root, stop=threading.Event(), seconds=0.01)(root.read)  # type: ignore[arg-type]


@pytest.mark.usefixtures("impatient")
def test_that_a_file_is_gone_is_an_answer() -> None:
    root, told = Flaky(1), list[str]()
    patiently = Patience(root, stop=threading.Event(), seconds=1000, tell=told.append)  # type: ignore[arg-type]

    def gone() -> str:
        root.read()
        raise ImageUnreadable("It is gone.")

    with pytest.raises(ImageUnreadable, match="It is gone"):
        patiently(gone)
    assert told == ["It is away. Waiting for it.", ""]


def test_who_has_no_time_waits_for_nothing() -> None:
    root = Flaky(10**9)
    with pytest.raises(RootAway, match=r"It is away\.$"):
        Patience(root, stop=threading.Event(), seconds=0)(root.read)  # type: ignore[arg-type]
    assert root.asked == 1


def test_a_stop_ends_the_waiting() -> None:
    root, stop = Flaky(10**9), threading.Event()
    stop.set()
    with pytest.raises(GivenUp):
        Patience(root, stop=stop, seconds=1000)(root.read)  # type: ignore[arg-type]


@pytest.mark.usefixtures("impatient")
def test_one_file_that_cannot_be_got_holds_nobody_up() -> None:
    root = Flaky(10**9, answers=True)
    with pytest.raises(ImageUnreadable, match="though others can"):
        Patience(root, stop=threading.Event(), seconds=1000)(root.read)  # type: ignore[arg-type]
