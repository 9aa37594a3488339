"""What leaves the course carries its base's licence: by name, with a link, and as the base's own text."""

from dataclasses import replace

import pytest
from huggingface_hub.utils import filter_repo_objects
from small import small_base

from helpers import base_model
from helpers.base_model import resolve_base_model
from helpers.export.model_card import model_card
from helpers.licences import PATTERNS, copy_licences, licence_files

TERMS = ("LICENSE", "LICENSE.txt", "MODEL_LICENSE", "NOTICE", "Notice.txt", "USE_POLICY.md", "Community License.pdf")
RECORD = {"settings": {"profile": "smoke", "seed": 1}, "device": "cpu", "dtype": "float32", "packages": {}}


@pytest.fixture
def local(tmp_path):
    base = small_base(tmp_path / "models" / "her-base")
    for name in TERMS:
        (base.path / name).write_text(f"the text of {name}")
    return base


def test_the_texts_are_copied_and_nothing_else(local, tmp_path):
    target = tmp_path / "export"
    target.mkdir()
    (target / "LICENSE").write_text("of an older base")
    copy_licences(local.path, target)
    assert {file.name: file.read_text() for file in target.iterdir()} == {n: f"the text of {n}" for n in TERMS}
    assert [file.name for file in licence_files(target)] == sorted(TERMS)


@pytest.mark.parametrize(
    ("name", "link", "licence"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "https://x/q", "Apache-2.0, https://x/q"),
        (
            "Qwen/Qwen2.5-3B-Instruct",
            "https://x/q",
            "see https://x/q; qwen2.5 is published under Apache-2.0, https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct",
        ),
        (
            None,
            "",
            "see its own folder; qwen2.5 is published under Apache-2.0, "
            "https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct",
        ),
    ],
)
def test_the_licence_is_the_familys_where_the_base_is_one_of_it(local, name, link, licence):
    assert replace(local, name=name or local.name, link=link).licence == licence


def test_the_embedded_base_has_gemmas_terms(tiny):
    assert tiny.licence == "Gemma Terms of Use, https://ai.google.dev/gemma/terms"


def test_a_card_names_a_local_base_without_the_way_to_it(local, card, tmp_path):
    text = model_card("merged", "Merged.", RECORD, [], local, card, {})
    assert str(tmp_path) not in text
    assert "\nbase_model: her-base\n" in text and "`her-base`, content hash" in text
    assert "under Apache-2.0, https://huggingface.co/Qwen/" in text
    assert f"Its terms are beside this file: {', '.join(f'`{name}`' for name in sorted(TERMS))}." in text
    assert replace(local, name="Qwen/Qwen2.5-7B-Instruct", link="https://x/q").label == "Qwen/Qwen2.5-7B-Instruct"


def test_the_hub_is_asked_for_them(local, monkeypatch):
    files, asked = [*TERMS, "README.md", "model.safetensors", "pytorch_model.bin"], []

    def snapshot(name, allow_patterns):
        asked.extend(filter_repo_objects(files, allow_patterns=allow_patterns))
        return str(local.path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    base = resolve_base_model("Qwen/Qwen2.5-7B-Instruct")
    assert {*asked} == {*TERMS, "model.safetensors"} and set(PATTERNS)
    assert base.link == "https://huggingface.co/Qwen/Qwen2.5-7B-Instruct"
    assert base.licence == f"Apache-2.0, {base.link}" != base_model.GEMMA_TERMS
