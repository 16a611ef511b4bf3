"""Tables that users bring: whatever the encoding, with everything that is wrong listed by its line."""

import pytest

from vlm.formats.table import Table, TableBroken, match_files, number, numbers, read_table


def rows(table: Table) -> list[tuple[str, ...]]:
    return [(row.file, *row.values.values()) for row in table.rows]


@pytest.mark.parametrize(
    ("content", "encoding", "delimiter"),
    [
        (b"file,dimension,value\na.jpg,weather,sunny\n", "utf-8", ","),
        ("file;dimension;value\r\na.jpg;weather;sunny\r\n".encode("utf-8-sig"), "utf-8-sig", ";"),
        ("file\tdimension\tvalue\na.jpg\tweather\tsunny".encode("utf-16"), "utf-16", "\t"),
        (b"sep=;\r\nfile;dimension;value\r\na.jpg;weather;sunny\r\n", "utf-8", ";"),
        (b'"file","dimension","value"\n\n"a.jpg","weather","sunny"\n,,\n', "utf-8", ","),
        (b" File | Dimension | Value \n a.jpg | weather | sunny \n", "utf-8", "|"),
    ],
)
def test_encodings_and_delimiters(content: bytes, encoding: str, delimiter: str) -> None:
    table = read_table(content, key=("dimension",))
    assert (table.encoding, table.delimiter) == (encoding, delimiter)
    assert [name.lower() for name in table.columns] == ["dimension", "value"]
    assert rows(table) == [("a.jpg", "weather", "sunny")]
    assert not table.problem_count


def test_what_excel_writes_in_western_europe() -> None:
    table = read_table("Datei;path;Wert\nx;küste.jpg;0,5\n".encode("cp1252"))
    assert (table.encoding, table.file_column, table.columns) == ("cp1252", "path", ("Datei", "Wert"))
    assert [(row.file, value) for row, value in numbers(table, "Wert")] == [("küste.jpg", 0.5)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"a,b\n1,2\n", "Call one of them “file”"),
        (b"file,value,Value\n", "Two columns"),
        (b"file,value\na,1\n", "no column “dimension”"),
        (b"PK\x03\x04\x00\x00\x00", "is no text"),
        (b"file\n\x81\x8d\xff", "UTF-8"),
        (b"\xff\xfea", "UTF-16"),
        (b'file,dimension\n"' + b"a" * 200_000 + b'",x\n', "Line 2"),
        (b"file," + b",".join(b"c%d" % n for n in range(300)), "columns"),
    ],
)
def test_what_is_no_table_says_why(content: bytes, message: str) -> None:
    with pytest.raises(TableBroken, match=message):
        read_table(content, key=("dimension",))


def test_rows_that_cannot_be_used_are_listed_by_their_line() -> None:
    table = read_table(
        b"file,dimension,value\n"
        b"a.jpg,weather,sunny\n"
        b'"two\nlines.jpg",weather,sunny\n'
        b",weather,sunny\n"
        b"b.jpg,weather,sunny,more\n"
        b"a.jpg,Weather,rainy\n"
        b"a.jpg,season\n",
        key=("dimension",),
    )
    assert rows(table) == [
        ("a.jpg", "weather", "sunny"),
        ("two\nlines.jpg", "weather", "sunny"),
        ("a.jpg", "season", ""),
    ]
    assert [(problem.line, problem.reason) for problem in table.problems] == [
        (5, "“file” is empty"),
        (6, "it has 4 cells, the header 3"),
        (7, "it repeats line 2, which counts"),
    ]
    assert str(table.problems[0]) == "Line 5: “file” is empty"


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("-0.5", -0.5), ("1e3", 1000), (" .25 ", 0.25), ("+2.", 2), ("007", 7)]
)
def test_numbers(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e999", "1_000", "0x10", "0,5", "1,000", "five", "9" * 5000, "٣"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="is no number"):
        number(text)


def test_a_column_of_numbers_lists_what_is_none() -> None:
    table = read_table(b"file,iou\na.jpg,0.5\nb.jpg,\nc.jpg,high\n")
    assert [(row.file, value) for row, value in numbers(table, table.column("IoU"))] == [("a.jpg", 0.5)]
    assert [str(problem) for problem in table.problems] == ["Line 4: “high” is no number (column “iou”)"]


def test_files_are_found_by_their_path_or_an_end_that_no_other_has() -> None:
    known = [(1, "train/cat/1.jpg"), (2, "train/dog/1.jpg"), (3, "val/2.jpg"), (4, "Küste.JPG"), (5, "my photo.jpg")]
    written = [
        "train/cat/1.jpg",
        r"C:\data\dog\1.jpg",
        "/content/set/2.jpg",
        "ku\u0308ste.jpg",
        "my%20photo.jpg",
        "1.jpg",
        "gone.jpg",
        "train/2.jpg",
        "./val/2.jpg",
    ]
    table = read_table(b"file\n" + "\n".join(written).encode())
    found = match_files(table, iter(known))
    assert [found.get(row.line) for row in table.rows] == [1, 2, 3, 4, 5, None, None, None, None]
    reasons = {problem.line: problem.reason for problem in table.problems}
    assert "fits several files alike (train/cat/1.jpg, train/dog/1.jpg)" in reasons[7]
    assert "no file of the data set" in reasons[8]
    assert "no file of the data set" in reasons[9]
    assert "is the file of line 4, which counts" in reasons[10]
