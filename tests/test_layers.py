"""The house stands as ``docs/architecture.md`` draws it: nothing imports upward, and nothing goes past the door."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VLM = ROOT / "vlm"

# From the top to the ground. A room may import rooms of a lower number, and itself.
LAYERS: list[set[str]] = [
    # who calls
    {"views", "admin", "consumers", "management", "middleware", "urls", "routing", "apps", "converters"},
    {"live", "forms", "vocabulary_forms", "templatetags"},
    # the one door
    {"services"},
    # the life of things
    {"runs", "datasets", "backups", "archives"},
    {"jobs", "nudges", "errands"},
    {"process", "models", "permissions"},
    # what knows no Django
    {"scoring"},
    {"formats", "moondream", "statistics", "demo", "figures", "thumbnails", "vocabulary_file"},
    {"samples", "imaging", "roots"},
    {"vocabulary", "measures", "exif"},
    {"errors"},
]
HEIGHT = {room: len(LAYERS) - place for place, rooms in enumerate(LAYERS) for room in rooms}
DOORS = {
    "converters",
    "views",
    "admin",
    "consumers",
    "management",
    "middleware",
    "live",
    "forms",
    "vocabulary_forms",
    "templatetags",
}
WITHOUT_DJANGO = {
    "scoring",
    "formats",
    "moondream",
    "statistics",
    "samples",
    "imaging",
    "roots",
    "thumbnails",
    "vocabulary",
    "measures",
    "exif",
    "errors",
    "figures",
}

# What doors may know of the rooms behind the service: words in which they ask and are answered, never what acts.
TERMS = {
    "vlm.errors",
    "vlm.demo",
    "vlm.figures",
    "vlm.formats",  # its list of formats
    "vlm.imaging",  # ImageUnreadable
    "vlm.models",  # for types and choices: see test_doors_do_not_read_tables
    "vlm.permissions",
    "vlm.runs.errors",
    "vlm.runs.options",
    "vlm.runs.state",  # RunState
    "vlm.samples",  # records and filters
    "vlm.samples.conditions",  # what can be asked of samples
    "vlm.samples.filters",
    "vlm.samples.ranges",
    "vlm.scoring.member",  # WorkerState
    "vlm.statistics",
    "vlm.statistics.calibration",  # results, as they are told
    "vlm.statistics.draws",  # Design
    "vlm.statistics.intervals",
    "vlm.statistics.plots",  # coordinates of a plot
    "vlm.statistics.thresholds",
    "vlm.vocabulary",
    "vlm.vocabulary_file",
}
ACTING = {
    "asking",
    "counting",
    "editing",
    "merging",
    "progress",
    "reading",
    "SampleStore",
    "where",
    "current_vocabulary",
    "words_by_dimension",
    "scan",
    "export_rows",
}
# The admin is made of tables by Django itself; the quick start ends with what its process holds.
EXCEPTIONS = {
    ("management/commands/quickstart.py", "vlm.process"),
    ("live.py", "vlm.nudges"),
}
LONGEST = 500


def room_of(path: Path) -> str:
    first = path.relative_to(VLM).parts[0]
    return first.removesuffix(".py")


def modules() -> list[Path]:
    return [
        path for path in sorted(VLM.rglob("*.py")) if "migrations" not in path.parts and path != VLM / "__init__.py"
    ]


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what a module imports from the house, as module and name; what only type checkers import does not count."""
    tree = ast.parse(path.read_text())
    package = [*path.relative_to(ROOT).with_suffix("").parts[:-1]]
    for_checkers = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_checkers:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                if (ROOT / Path(*module.split("."), alias.name)).with_suffix(".py").exists() or (
                    ROOT / Path(*module.split("."), alias.name)
                ).is_dir():
                    yield f"{module}.{alias.name}", ""
                else:
                    yield module, alias.name


def ours(path: Path) -> list[tuple[str, str]]:
    return [(module, name) for module, name in imports(path) if module.startswith("vlm.")]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(VLM)))
def test_nothing_imports_upward(path: Path) -> None:
    own = room_of(path)
    assert own in HEIGHT, f"vlm/{own} has no place in the house: give it one in LAYERS and in docs/architecture.md"
    for module, _ in ours(path):
        other = module.split(".")[1]
        assert other == own or HEIGHT[other] <= HEIGHT[own], f"{path.relative_to(ROOT)} imports upward: {module}"


def test_nothing_goes_past_the_door() -> None:
    past = [
        f"{path.relative_to(VLM)}: {module} {name}"
        for path in modules()
        if room_of(path) in DOORS
        for module, name in ours(path)
        if module.split(".")[1] not in DOORS | {"services"}
        and (str(path.relative_to(VLM)), module) not in EXCEPTIONS
        and (module not in TERMS or name in ACTING)
    ]
    assert past == []


def test_doors_do_not_read_tables() -> None:
    """They ask a service; only the form of the admin that edits rows touches them."""
    reading = [
        f"{path.relative_to(VLM)}:{node.lineno}"
        for path in modules()
        if room_of(path) in DOORS and room_of(path) != "admin"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("objects", "_default_manager")
    ]
    assert [place for place in reading if "quickstart" not in place] == []  # the quick start makes the first user


def test_the_lower_rooms_know_no_django() -> None:
    knowing = [
        f"{path.relative_to(VLM)}: {module}"
        for path in modules()
        if room_of(path) in WITHOUT_DJANGO
        for module, _ in imports(path)
        if module.split(".")[0] in ("django", "channels")
    ]
    assert knowing == []


def test_one_room_knows_ray() -> None:
    knowing = {
        str(path.relative_to(VLM)) for path in modules() for module, _ in imports(path) if module.split(".")[0] == "ray"
    }
    assert knowing == {"scoring/ray_cluster.py"}


def test_the_loop_knows_neither_pages_nor_terminals() -> None:
    known = {module.split(".")[0] for module, _ in imports(VLM / "runs" / "loop.py")}
    assert known.isdisjoint({"channels", "rich", "django"})


def test_no_room_is_longer_than_a_reader_s_breath() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (*modules(), *(ROOT / "datavisor").rglob("*.py"))
        if (lines := len(path.read_text().splitlines())) > LONGEST
    }
    assert long == {}


def test_the_map_of_the_house_names_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    missing = [room for rooms in LAYERS for room in rooms if f"`{room}`" not in text]
    assert missing == []
