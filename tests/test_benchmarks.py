"""Items of other benchmarks become scenarios, or are set aside with a reason."""

import json

import pytest

from helpers.evaluate.benchmarks import FORMATS, main, read_benchmark
from helpers.evaluate.scenarios import read_scenarios

ITEMS = {
    "eq_bench": ({"prompt": "ロバート：もう遅い。", "reference_answer": {"emotion1": "sad"}}, ["ロバート：もう遅い。"]),
    "eq_bench_3": ({"scenario_id": "7", "prompts": ["実はね", "どう思う？"]}, ["実はね", "どう思う？"]),
    "japanese_rp_bench": (
        {"id": 0, "first_user_input": "ねえ、先輩", "scene_setting": "放課後", "assistant_setting": "先輩"},
        ["ねえ、先輩"],
    ),
    "talk": ({"id": 3, "conversation_history": ["やあ", "なに？", "雨だよ"]}, ["やあ", "雨だよ"]),
    "messages": (
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "ただいま"}]},
        ["ただいま"],
    ),
}


def write(file, items):
    file.write_text("".join(f"{json.dumps(i, ensure_ascii=False)}\n" for i in items), encoding="utf-8")
    return file


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("named", [True, False])
def test_each_format_is_read_named_or_told(tmp_path, form, named):
    item, turns = ITEMS[form]
    (scenario,) = read_benchmark(write(tmp_path / "b.jsonl", [item]), form if named else None, level="lover").scenarios
    assert scenario.user_turns == turns and scenario.affection_level == "lover"
    assert scenario.id.startswith(f"{form}-") and scenario.situation in ("放課後", form)


@pytest.mark.parametrize(
    ("line", "form", "reason"),
    [
        ("nope", None, "not JSON"),
        ("[1]", None, "not an object"),
        ('{"prompt": "x"}', None, "none of the formats"),
        ('{"prompt": "x"}', "eq_bench", "needs reference_answer"),
        ('{"prompts": []}', None, "prompts: List should have at least 1 item"),
        ('{"prompts": ["x", 3]}', None, "prompts.1: Input should be a valid string"),
        ('{"prompts": ["x", " "]}', None, "one of them is empty"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', None, "user_turns"),
        ('{"messages": [{"role": "user"}]}', None, "messages.0.content: Field required"),
        ('{"scenario_id": "7", "prompts": ["x"]}', None, "used before"),
    ],
)
def test_a_bad_line_is_set_aside_with_its_reason(tmp_path, line, form, reason):
    good = ITEMS[form or "eq_bench_3"][0]
    file = write(tmp_path / "b.jsonl", [good])
    file.write_text(file.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    reading = read_benchmark(file, form)
    assert len(reading.scenarios) == 1
    assert reading.quarantine[0].line == 2 and reason in reading.quarantine[0].reason


def test_nothing_usable_and_an_unknown_format_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"b\.jsonl is a usable benchmark item\. b\.jsonl, line 1: its fields"):
        read_benchmark(write(tmp_path / "b.jsonl", [{}]))
    with pytest.raises(ValueError, match="no benchmark format 'mmlu': use one of eq_bench"):
        read_benchmark(tmp_path / "b.jsonl", "mmlu")
    with pytest.raises(FileNotFoundError, match="no benchmark items at"):
        read_benchmark(tmp_path / "none.jsonl")


def test_the_command_writes_what_08_reads(tmp_path, card, capsys):
    file = write(tmp_path / "b.jsonl", [item for item, _ in ITEMS.values()] + [{}])
    assert main([str(file), "--out", str(tmp_path / "s.jsonl"), "--level", "crush"]) == 0
    assert "5 scenarios" in capsys.readouterr().out and (tmp_path / "s.quarantine").exists()
    reading = read_scenarios(tmp_path / "s.jsonl", card)
    assert len(reading.scenarios) == 5 and not reading.quarantine
    assert main([str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "s.jsonl")]) == 1
    assert "no benchmark items" in capsys.readouterr().err
