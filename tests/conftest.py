"""Fixtures that more than one test file needs."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.base_model import BaseModel, resolve_base_model
from helpers.evaluate.metrics.metric import Tools
from helpers.evaluate.metrics.readers import LEARNED, teach
from helpers.persona import PersonaCard, load_persona
from helpers.settings import ROOT


@pytest.fixture(scope="session")
def tiny() -> BaseModel:
    return resolve_base_model("tiny")


@pytest.fixture(scope="session")
def tokenizer(tiny: BaseModel):
    return tiny.load_tokenizer()


@pytest.fixture(scope="session")
def card() -> PersonaCard:
    return load_persona()


@pytest.fixture(scope="session")
def run_ollama(tmp_path_factory):
    """A function from a Modelfile and chats to what Ollama makes of them: (commands, texts)."""
    if shutil.which("go") is None:
        pytest.skip("Go is not here, in whose language Ollama's templates are (apt-get install golang-go)")
    program = tmp_path_factory.mktemp("go") / "ollama"
    source = Path(__file__).parent / "ollama" / "main.go"
    subprocess.run(["go", "build", "-o", program, source], check=True, env={**os.environ, "GO111MODULE": "off"})

    def run(text: str, chats=()):
        job = json.dumps([{"modelfile": text, "chats": list(chats)}]).encode()
        done = subprocess.run([program], input=job, capture_output=True, check=True)
        (result,) = json.loads(done.stdout)
        assert not result["error"], result["error"]
        return [tuple(c) for c in result["commands"]], result["texts"] or []

    return run


@pytest.fixture(scope="session")
def tools(card: PersonaCard) -> Tools:
    """What the metrics measure Sakura with."""
    return Tools(card, teach(card, *(ROOT / "data" / kind / "sakura" for kind in LEARNED)))
