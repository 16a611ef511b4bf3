"""The two lists of requirements agree, and all that can be checked by hash is."""

import re

from tests.children import ROOT

# Which build of PyTorch is right depends on the machine; see tools/lock_hashes.py.
UNHASHED = {"torch"}


def pins(name: str) -> dict[str, str]:
    found = re.finditer(r"^([\w.-]+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", pin[1]).lower(): pin[2] for pin in found}


def test_every_release_but_pytorch_is_pinned_by_hash_too() -> None:
    plain, hashed = pins("requirements.txt"), pins("requirements-hashed.txt")
    assert {name: hashed.get(name) for name in plain if name not in UNHASHED} == {
        name: version for name, version in plain.items() if name not in UNHASHED
    }
    blocks = re.split(r"^(?=[^\s#])", (ROOT / "requirements-hashed.txt").read_text(), flags=re.MULTILINE)[1:]
    assert len(blocks) == len(hashed)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)
