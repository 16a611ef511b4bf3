"""Write tests/slow.txt: the tests that ``make test-fast`` leaves out because they take long.

    make test PYTEST=--junitxml=one.xml
    python -m tools.slow_tests one.xml two.xml …

A function is slow if its cases take 0.3 s or more on average. Each counts with its fastest report, since chance decides which
test pays for what is set up once.
"""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from xml.etree import ElementTree

SECONDS = 0.3
LIST = Path(__file__).resolve().parent.parent / "tests" / "slow.txt"


def main() -> None:
    fastest: dict[tuple[str, str], float] = {}
    for report in sys.argv[1:]:
        for case in ElementTree.parse(report).iter("testcase"):
            test = f"{case.attrib['classname'].replace('.', '/')}.py", case.attrib["name"]
            fastest[test] = min(float(case.attrib["time"]), fastest.get(test, float("inf")))
    functions = defaultdict(list)
    for (path, name), seconds in fastest.items():
        functions[f"{path}::{name.partition('[')[0]}"].append(seconds)
    slow = sorted(name for name, seconds in functions.items() if mean(seconds) >= SECONDS)
    LIST.write_text("".join(f"{name}\n" for name in slow))


if __name__ == "__main__":
    main()
