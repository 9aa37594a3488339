"""Every notebook keeps the anatomy, is in the README's table and in CI, and links to what exists."""

import json
import re

import pytest

from helpers.settings import PARAMETERS, ROOT, STAGES, parameters_of

NOTEBOOKS = [ROOT / "notebooks" / f"{stage}.ipynb" for stage in STAGES]


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def notebook(request):
    return request.param, json.loads(request.param.read_text(encoding="utf-8"))


def test_the_notebooks_are_the_stages():
    assert sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb")) == list(STAGES) == list(PARAMETERS)


def test_one_parameters_cell_of_plain_literals_with_every_parameter_of_the_stage(notebook):
    path, nb = notebook
    cells = [c for c in nb["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert len(cells) == 1
    values: dict = {}
    exec("".join(cells[0]["source"]), {"__builtins__": {}}, values)
    assert set(values) == {"profile", *parameters_of(path.stem)}
    assert values.pop("profile") == "auto"
    assert set(values.values()) == {None}


def test_committed_with_the_outputs_that_nbval_compares_and_no_others(notebook):
    path, nb = notebook
    assert "widgets" not in nb["metadata"]
    for cell in nb["cells"]:
        assert bool(cell.get("outputs")) == ("nbval-check-output" in cell["metadata"].get("tags", []))
        assert all(o["output_type"] == "stream" for o in cell.get("outputs", []))
        assert bool(cell.get("execution_count")) == bool(cell.get("outputs"))  # nbval wants both or neither
        assert "execution" not in cell["metadata"]
    assert not re.search(r"/(home|root|tmp|work)/\w", path.read_text(encoding="utf-8"))


def test_anatomy(notebook):
    path, nb = notebook
    text = ["".join(c["source"]) for c in nb["cells"]]
    markdown = "\n".join(t for t, c in zip(text, nb["cells"], strict=True) if c["cell_type"] == "markdown")
    code = [t for t, c in zip(text, nb["cells"], strict=True) if c["cell_type"] == "code"]
    assert text[0].startswith(f"# {path.stem[:2]} · ")
    for heading in ("## 1 · ", "## Check yourself", "## Recap"):
        assert heading in markdown
    assert "**Needs**" in text[0] and "**Takes**" in text[0]
    assert any("assert " in c for c in code)
    assert any("figures.save(" in c for c in code), "a figure worth looking at"
    assert "stage.finish(" in code[-1]
    ids = [c["id"] for c in nb["cells"]]
    assert len(ids) == len(set(ids)), sorted(ids)
    assert not any("sys.path" in c or re.search(r"^[!%]?pip install", c, re.M) for c in code)
    for cell in nb["cells"]:  # the parameters are a list, of which the contract sets the length
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", []):
            assert len("".join(cell["source"]).splitlines()) <= 25, cell["id"]


def test_a_finished_stage_stands_until_its_artifacts_change(notebook):
    _, nb = notebook
    cells = [c for c in nb["cells"] if c["cell_type"] == "code"]
    before, _ = "\n".join("".join(c["source"]) for c in cells).split("stage.writes()")  # once
    assert "records.start(cfg)" in before and "stage.reads_data(" in before, "what is refused at once comes first"
    changes = ("write_conversations(", "save_merged(", ".save(trainer", "evaluation.play(", "write_dotenv(")
    assert not any(change in before for change in changes)
    trains = [c for c in cells if "train" in c["metadata"].get("tags", [])]
    if trains:
        assert "sft.run(" in before, "what stops in hours of training is not what is there already"
        assert any("stage.writes()" in "".join(c["source"]) for c in trains), "outside Jupyter too"


def test_links_resolve(notebook):
    path, nb = notebook
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            _check_links(path.parent, "".join(cell["source"]))


def test_readme_links_resolve_and_its_table_has_every_notebook():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _check_links(ROOT, readme)
    for stage in STAGES:
        assert f"notebooks/{stage}.ipynb" in readme


def test_ci_runs_every_notebook():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert re.search(r"--nbval-lax .*notebooks$", (ROOT / "Makefile").read_text(), re.M)


def _check_links(folder, text):
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith("http"):
            assert (folder / target).exists(), target
