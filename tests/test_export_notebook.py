"""What 06 leaves is of this run alone: its cells about GGUF, Ollama and cards, run with stand-ins for the work."""

import json
from types import SimpleNamespace

import pytest

from helpers.export import quantize, worker
from helpers.files import remove, write_atomically
from helpers.licences import copy_licences
from helpers.settings import ROOT

CELLS = ("c06-gguf-2", "c06-22", "ollama-adapter", "c06-card-2", "c06-26")


def _converted(model, target, types, log):
    target.mkdir(exist_ok=True)
    files = {name: target / f"{name}.gguf" for name in types}
    for size, file in enumerate(reversed(files.values()), 2):
        file.write_bytes(b"x" * size)
    return SimpleNamespace(files=files, seconds=1.0)


def _refused(model, target, types, log):
    raise worker.Refused("llama.cpp's converter cannot take merged.")


@pytest.fixture
def earlier(tmp_path):
    """The folder of a stage whose earlier run left all that there can be."""
    for folder in ("merged", "gguf", "ollama_adapter", "base"):
        (tmp_path / folder).mkdir()
    for file in ("gguf/q4_K_M.gguf", "Modelfile", "Modelfile.adapter", "ollama_adapter/model.safetensors"):
        (tmp_path / file).write_bytes(b"x")
    (tmp_path / "base" / "LICENSE").write_text("terms")
    return tmp_path


def run(folder, types, convert, takes=True):
    """The cells' variables; `finish` among them is what the stage was finished with."""
    asked, cards, finished = [], {}, {}

    def source(model, *_):
        asked.append(model)
        if not takes:
            raise ValueError("Ollama would not take it.")
        return model

    def adapter_source(base, tokenizer, adapter, target):
        source(base)
        target.mkdir()
        (target / "model.safetensors").touch()
        return "over"

    def write_card(name, sentence, *_):
        cards[name] = sentence
        return "card"

    quality = SimpleNamespace(figures={})
    exports = ["merged", "awq", *(f"gguf {name}" for name in types if convert is _converted)]
    variables = {
        "cfg": SimpleNamespace(folder=folder, gguf=types, talk_tokens=1, adapter="05_dpo", run=folder),
        "folder": folder / "merged",
        "base": SimpleNamespace(path=folder / "base", label="her-base"),
        "companion": SimpleNamespace(adapter=folder / "adapter"),
        "stage": SimpleNamespace(
            inputs={}, record={}, finish=lambda **given: finished.update(given) or {"status": "complete"}
        ),
        **dict.fromkeys(("card", "tokenizer")),
        "verdict": quality,
        "into_four_bit": quality,
        "made": {"awq": quantize.Quantized("awq", folder / "awq", 1, 1.0, 32, 3)},
        "found": {name: SimpleNamespace(figures={}, replies=()) for name in exports},
        "speed": dict.fromkeys(exports, 1.0),
        "gguf_files": SimpleNamespace(convert=convert),
        "worker": worker,
        "quantize": quantize,
        "remove": remove,
        "write_atomically": write_atomically,
        "copy_licences": copy_licences,
        "find_source": source,
        "find_adapter_source": adapter_source,
        "modelfile": lambda *_, **__: "FROM",
        "sampling_defaults": lambda folder: None,
        "model_card": SimpleNamespace(model_card=write_card),
        "records": SimpleNamespace(lineage=lambda *_: []),
        "check_export": lambda *_: None,
    }
    (folder / "awq").mkdir()
    notebook = json.loads((ROOT / "notebooks" / "06_merge_quantize.ipynb").read_text(encoding="utf-8"))
    source_of = {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}
    for cell in CELLS:
        exec(source_of[cell], variables)
    return SimpleNamespace(asked=asked, cards=cards, artifacts=finished["artifacts"])


def test_from_is_the_smallest_file_of_this_run(earlier):
    done = run(earlier, ("f16", "q8_0"), _converted)
    assert done.asked == [earlier / "gguf" / "q8_0.gguf", earlier / "base"]
    assert done.artifacts == ["merged", "awq", "gguf", "figures", "Modelfile", "Modelfile.adapter", "ollama_adapter"]
    assert all((earlier / name).exists() for name in done.artifacts if name != "figures")
    assert "GGUF" not in done.cards["merged"]


def test_without_gguf_from_is_the_merged_folder_and_nothing_of_an_earlier_run_stays(earlier):
    done = run(earlier, (), _converted, takes=False)
    assert done.asked == [earlier / "merged", earlier / "base"]
    assert done.artifacts == ["merged", "awq", "figures"]
    assert sorted(path.name for path in earlier.iterdir()) == ["awq", "base", "merged"]


def test_a_family_that_the_converter_does_not_take_goes_on_without_gguf(earlier, capsys):
    done = run(earlier, ("f16", "q8_0"), _refused)
    said = "There are no GGUF files of her. llama.cpp's converter cannot take merged."
    assert said in capsys.readouterr().out and done.cards["merged"].endswith(f" {said}")
    assert done.asked[0] == earlier / "merged"
    assert "gguf" not in done.artifacts and not (earlier / "gguf").exists()


def test_cards_say_how_and_licences_go_along(earlier):
    done = run(earlier, ("f16",), _converted)
    assert done.cards["merged"].startswith("Her adapter from 05_dpo, merged onto her-base in float32")
    assert done.cards["awq"].endswith("Calibrated on the beginnings of 3 training dialogues.")
    for name in ("merged", "awq", "gguf"):
        assert (earlier / name / "LICENSE").read_text() == "terms"
