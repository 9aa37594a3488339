"""An export that is there, whole and made of the same things is not made again.

In: what an export is made from, as one hash. Out: its note, `export.json`, with the hashes of its weights.
"""

import json
from pathlib import Path

from helpers.files import sha256_file

NOTE = "export.json"
WEIGHTS = ("*.safetensors", "*.gguf")


def note(folder: Path, made_from: str, **more: object) -> None:
    """Write the note into a folder that is whole but for it; `more` are JSON values to keep."""
    weights = {f.name: sha256_file(f) for pattern in WEIGHTS for f in sorted(folder.glob(pattern))}
    text = json.dumps({"made_from": made_from, "weights": weights, **more}, indent=1, ensure_ascii=False)
    (folder / NOTE).write_text(text + "\n", encoding="utf-8")


def noted(folder: Path, made_from: str) -> dict | None:
    """The note of an export made from the same, if its weights are what they were; else None."""
    try:
        found = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        same = found["made_from"] == made_from and found["weights"]
        return found if same and all(sha256_file(folder / f) == h for f, h in found["weights"].items()) else None
    except (FileNotFoundError, ValueError, KeyError):
        return None
