"""Replies in batches are the replies one by one, whatever side a tokenizer pads on by itself."""

import pytest
from small import small_base
from transformers import AutoModelForCausalLM

from helpers.generation import reply

SAID = ["やあ", "今日はとても長い一日だったよ。朝から晩まで歩きつづけた", "ねえ、聞いて"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_in_a_batch_she_says_what_she_says_alone(tmp_path, side):
    base = small_base(tmp_path)
    tokenizer = base.load_tokenizer()
    tokenizer.padding_side = side
    model = AutoModelForCausalLM.from_pretrained(base.path)
    chats = [[{"role": "user", "content": text}] for text in SAID]
    together = reply(model, tokenizer, chats, 12)
    assert together == [reply(model, tokenizer, [chat], 12)[0] for chat in chats]
    assert len({r.text for r in together}) == len(SAID), "what is said matters, or the test shows nothing"
