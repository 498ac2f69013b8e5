"""Files that ship inside the package: sample images for the demo."""

from pathlib import Path

SAMPLE = Path(__file__).parent / "room.jpg"
