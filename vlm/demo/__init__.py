"""What a first run shows: a small trained checkpoint and a few free photographs, both for demonstration only."""

from pathlib import Path

DEMO_CHECKPOINT = Path(__file__).resolve().parent / "checkpoint"
DEMO_PHOTOS = Path(__file__).resolve().parent / "photos"
