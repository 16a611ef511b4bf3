"""Write requirements-hashed.txt: the requirements with the hashes of every file that PyPI has of these releases.

Run by ``make lock`` with what ``uv pip compile --universal --generate-hashes`` made. PyTorch is left out, with the packages
of NVIDIA that only it needs: which build of it is right (CPU, CUDA, ROCm, a mirror's) is chosen by the index, and the builds
have other hashes than PyPI's under the same release. So it is pinned by its version in requirements.txt.
"""

import re
import sys
from pathlib import Path

BUILDS = re.compile(r"(torch|triton|nvidia-.+|cuda-.+)==")
CPYTHON = " ; platform_python_implementation == 'CPython'"
HEAD = "# Made by `make lock`. Comes first, with --require-hashes; requirements.txt then adds PyTorch (see tools/lock_hashes.py).\n"


def main() -> None:
    blocks = re.split(r"^(?=\S)", Path(sys.argv[1]).read_text(), flags=re.MULTILINE)
    kept = [re.sub(rf"{re.escape(CPYTHON)}(?= \\)", "", block) for block in blocks if block and not BUILDS.match(block)]
    Path("requirements-hashed.txt").write_text(HEAD + "".join(kept))


if __name__ == "__main__":
    main()
