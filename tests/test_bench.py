"""What the benches promise is checked by them: they end with 1 where it is broken."""

import pytest
from bench_corpus import broken
from bench_generate import too_slow

from helpers.serve.server import VLLMServer
from helpers.settings import PARAMETERS


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ((1.14, 1.19, True), ""),
        ((1.16, 1.0, True), "a dialogue takes 1.16 times as long"),
        ((0.9, 1.21, False), "peak memory is 1.21 times as large; a build that was killed and went on has other rows"),
    ],
)
def test_a_corpus_of_any_number(measured, said):
    assert broken(*measured) == said


def test_a_batch_is_as_fast_as_the_server():
    assert too_slow(91, 100) == "" == too_slow(120, 100)
    assert too_slow(89, 100) == "batch has 0.89 of the server's own throughput"


def test_a_batch_keeps_as_many_under_way_as_our_server_takes(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "config.json").write_text('{"torch_dtype": "float32"}', encoding="utf-8")
    command = VLLMServer(tmp_path, "base", tmp_path).command()
    _, on_a_cpu, _ = PARAMETERS["01_data"]["concurrency"]
    assert command[command.index("--max-num-seqs") + 1] == str(on_a_cpu)
