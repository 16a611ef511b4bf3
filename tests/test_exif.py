"""What cameras write is read where it makes sense, and is nothing where it does not."""

from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from vlm import exif, imaging

PARIS = {
    exif.TAKEN: "2024:05:01 12:30:15",
    exif.MAKE: "Canon",
    exif.MODEL: "Canon EOS R6\0",
    exif.LATITUDE: (48.0, 51.0, 30.24),
    exif.LATITUDE_IS: "N",
    exif.LONGITUDE: (2.0, 17.0, 40.2),
    exif.LONGITUDE_IS: "W",
}


def test_when_with_what_and_where() -> None:
    found = exif.taken(PARIS)
    assert (found.when, found.camera) == (datetime(2024, 5, 1, 12, 30, 15), "Canon EOS R6")  # noqa: DTZ001
    assert found.place == pytest.approx((48.8584, -2.2945))
    assert exif.taken({exif.CHANGED: "2020:01:02 03:04:05", exif.MAKE: "Nikon", exif.MODEL: "D5"}).camera == "Nikon D5"
    assert exif.taken({}) == exif.Taken()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(sorted([*PARIS, exif.CHANGED])),
        st.one_of(st.text(), st.binary(), st.floats(), st.lists(st.one_of(st.floats(), st.text())), st.none()),
    )
)
def test_nonsense_is_nothing(said: dict[int, object]) -> None:
    found = exif.taken(said)
    assert found.place is None or (abs(found.place[0]) <= 90 and abs(found.place[1]) <= 180)
    assert found.camera.isprintable()


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_the_head_of_a_file_says_it(tmp_path: Path, kind: str) -> None:
    head = Image.Exif()
    head[exif.MODEL] = "Box 7"
    head[274] = 6  # lies on its side
    head.get_ifd(0x8769)[exif.TAKEN] = "2023:02:03 04:05:06"
    head.get_ifd(0x8825).update({1: "S", 2: tuple(TiffImagePlugin.IFDRational(n, 2) for n in (20, 60, 0)), 3: "E"})
    head.get_ifd(0x8825)[4] = tuple(TiffImagePlugin.IFDRational(n) for n in (20, 30, 0))
    path = tmp_path / f"a.{kind}"
    Image.new("RGB", (30, 20)).save(path, exif=head)
    size, said = imaging.header(path)
    assert size == (20, 30)
    found = exif.taken(said)
    assert (found.camera, found.place) == ("Box 7", (-10.5, 20.5))
    assert found.when == datetime(2023, 2, 3, 4, 5, 6)  # noqa: DTZ001
    Image.new("RGB", (30, 20)).save(path)
    assert imaging.header(path) == ((30, 20), {})
