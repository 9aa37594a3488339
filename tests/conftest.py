"""Fixtures that more than one test file needs."""

import pytest

from helpers.base_model import BaseModel, resolve_base_model
from helpers.evaluate.metrics.metric import Tools
from helpers.evaluate.metrics.readers import teach
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
def tools(card: PersonaCard) -> Tools:
    """What the metrics measure Sakura with."""
    return Tools(card, teach(ROOT / "data" / "dialogues" / "sakura", ROOT / "data" / "preferences" / "sakura"))
