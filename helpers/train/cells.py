"""A training notebook outside Jupyter: its cells tagged `train`, in a plain Python process.

In: a stage and the parameters given. Out: the variables that the cells leave. They name `stage` (the run record),
`measured` (its metrics) and `adapter_folder` (what was trained), which `record()` takes.
"""

import json

from helpers.settings import ROOT

NOTEBOOKS = ROOT / "notebooks"


def tagged(stage: str, tag: str) -> dict[str, str]:
    """The notebook's code cells with this tag: id → source."""
    cells = json.loads((NOTEBOOKS / f"{stage}.ipynb").read_text(encoding="utf-8"))["cells"]
    return {c["id"]: "".join(c["source"]) for c in cells if tag in c["metadata"].get("tags", [])}


def run(stage: str, given: dict[str, object]) -> dict[str, object]:
    """Execute the `parameters` cell, set what is `given`, execute the cells tagged `train`; all variables."""
    variables: dict[str, object] = {"__name__": "__main__"}
    for cell, source in tagged(stage, "parameters").items():
        exec(compile(source, f"{stage}:{cell}", "exec"), variables)
    variables |= given
    for cell, source in tagged(stage, "train").items():
        exec(compile(source, f"{stage}:{cell}", "exec"), variables)
    return variables


def record(variables: dict) -> dict[str, object]:
    """Mark the stage complete, with what the cells measured and trained."""
    return variables["stage"].finish(metrics=variables["measured"], artifacts=[variables["adapter_folder"].name])
