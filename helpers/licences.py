"""The texts of a base model's licence go wherever its weights go.

In: a folder with a model. Out: the files that hold its terms, and copies of them beside what is made of it.
"""

import shutil
from pathlib import Path

# As published: LICENSE, LICENSE.txt, MODEL_LICENSE, "Community License for Baichuan2 Model.pdf", NOTICE, USE_POLICY.md.
PATTERNS = ("*LICENSE*", "*License*", "NOTICE*", "Notice*", "USE_POLICY*")


def licence_files(folder: Path) -> list[Path]:
    """The files directly in `folder` that hold terms, by name."""
    return sorted({file for pattern in PATTERNS for file in folder.glob(pattern) if file.is_file()})


def copy_licences(source: Path, target: Path) -> None:
    """Copy them from one folder to another; one that is there already is replaced."""
    for file in licence_files(source):
        shutil.copyfile(file, target / file.name)
