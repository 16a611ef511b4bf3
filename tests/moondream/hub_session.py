"""A user's sessions with a hub, run by ``test_hub.py`` in a process of its own: its settings are read at import.

Usage: python -m tests.moondream.hub_session SIZE SHA256-OF-WEIGHTS SHA256-OF-TOKENIZER; writes JSON.
"""

import dataclasses
import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download

from vlm.moondream import LoadProgress, ModelUnavailable, hub, load_tagger

Session = dict[str, Any]


class Stopped(Exception):
    """What a user's own progress callback raises."""


def session(*, stop: bool = False) -> Session:
    """Load the tagger once: what was reported, what the server was asked for, and the error if there was one."""
    reports: list[LoadProgress] = []
    error = None
    urllib.request.urlopen(f"{constants.ENDPOINT}/forget").close()
    try:
        load_tagger(device="cpu", dtype="float32", progress=give_up if stop else reports.append)
    except ModelUnavailable as unavailable:
        error = str(unavailable)
    except Stopped as stopped:
        error = f"stopped at {stopped}"
    with urllib.request.urlopen(f"{constants.ENDPOINT}/asked") as answer:
        asked = json.load(answer)
    return {
        "error": error,
        "asked": asked,
        "reports": [(report.stage, report.done, report.total) for report in reports],
    }


def give_up(report: LoadProgress) -> None:
    raise Stopped(report.stage)


def main() -> None:
    size, weights, tokenizer = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    pinned = hub.PINNED
    pinned["weights"] = dataclasses.replace(pinned["weights"], size=size, sha256=weights[:16])
    pinned["tokenizer"] = dataclasses.replace(pinned["tokenizer"], sha256=tokenizer[:16])

    results = {"first": session(), "second": session()}
    file = pinned["weights"]
    link = Path(hf_hub_download(file.repository, file.name, revision=file.revision, local_files_only=True))
    blob = link.resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    os.utime(blob, (0, 0))  # a clock's tick may be too coarse to tell the two apart
    results["corrupted"] = session()
    blob.unlink()
    results["stopped"] = session(stop=True)
    results["deleted"] = session()
    constants.HF_HUB_OFFLINE = True
    results["offline"] = session()
    constants.HF_HUB_OFFLINE = False
    pinned["weights"] = dataclasses.replace(file, name="other.safetensors")
    results["absent"] = session()
    results["blob"] = str(blob)  # type: ignore[assignment]
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
