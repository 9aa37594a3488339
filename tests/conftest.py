"""Fixtures that more than one test file needs."""

import pytest

from helpers.base_model import BaseModel, resolve_base_model
from helpers.persona import PersonaCard, load_persona


@pytest.fixture(scope="session")
def tiny() -> BaseModel:
    return resolve_base_model("tiny")


@pytest.fixture(scope="session")
def tokenizer(tiny: BaseModel):
    return tiny.load_tokenizer()


@pytest.fixture(scope="session")
def card() -> PersonaCard:
    return load_persona()
