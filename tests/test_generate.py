"""Method B: the same seed asks for the same, nothing is asked twice, and only what passes the gate is kept."""

import contextlib
import json
import re
import signal
import threading
import time
from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest

from helpers.conversations import Conversation, read_conversations
from helpers.data import batch, generate, judge
from helpers.data.orders import SCHEMA, draw_orders, read_material
from helpers.data.reserved import NOTHING, Reserved
from helpers.data.split import first_turn
from helpers.persona import LEVELS, load_persona
from helpers.replies import Reply
from helpers.settings import ROOT

GOOD = [
    ("今日、{n}回も転んだ", "え、{n}回も？どこか打ってない？"),
    ("ひざだけ。{n}の数だけ青い", "じゃあ今夜は湿布が{n}枚いるね。ちゃんと冷やして。"),
    ("うん、{n}分だけ冷やす", "{n}分たったら、ひざの様子も聞かせてほしいな。"),
]


@pytest.fixture(scope="module")
def material():
    return read_material(ROOT / "data" / "generation" / "situations.yaml")


@pytest.fixture(scope="module")
def examples():
    return read_conversations(ROOT / "data" / "dialogues" / "sakura" / "plain.jsonl").conversations


class Model:
    """An endpoint that answers well, counts, and presses Ctrl-C or fails where it is told to."""

    def __init__(self, interrupt_at: int | None = None, fails: bool = False, seconds: float = 0.002):
        self.asked, self.lock, self.interrupt_at, self.fails = Counter(), threading.Lock(), interrupt_at, fails
        self.seconds, self.now, self.most = seconds, 0, 0

    def reply(self, messages, *, max_tokens, temperature, seed, extra):
        assert extra["response_format"]["json_schema"]["schema"] == SCHEMA

        with self.lock:
            self.asked[seed] += 1
            self.now += 1
            self.most = max(self.most, self.now)
            if sum(self.asked.values()) == self.interrupt_at:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
        if self.fails:
            raise ConnectionError("nobody answers")
        turns = [
            {"role": r, "content": t.format(n=seed)}
            for pair in GOOD
            for r, t in zip(("user", "assistant"), pair, strict=True)
        ]
        return Reply(json.dumps({"messages": turns}, ensure_ascii=False), True, 20, 30)


def dialogue(n: int) -> str:
    model = Model()
    shape = {"response_format": {"json_schema": {"schema": SCHEMA}}}
    return model.reply([], max_tokens=1, temperature=0, seed=n, extra=shape).text


def go(orders, model, folder, examples, **more):
    log = batch.AnswerLog(folder / "answers.jsonl")
    sampling = more.pop("sampling", {"model": "m", "max_tokens": 700, "temperature": 0.9})
    requests = [o.request(load_persona(), examples) for o in orders]
    return batch.run(requests, model, log, sampling, **{"concurrency": 32} | more)


class Writer:
    """An endpoint that writes what was written by hand, one after the other, and likes all of it. A letter is a token;
    `unwell` is how many requests it refuses, `counts` whether it tells tokens."""

    model = "m"

    def __init__(self, written, unwell: int = 0, counts: bool = True, seconds: float = 0.001):
        self.written, self.unwell, self.counts, self.seconds = iter(written), unwell, counts, seconds
        self.lock = threading.Lock()
        self.costs = {"dialogues": [], "marks": []}

    def reply(self, messages, *, max_tokens, temperature, seed, extra):
        judged = extra["response_format"]["json_schema"]["schema"] == judge.SCHEMA
        with self.lock:
            if self.unwell:
                self.unwell -= 1
                raise ConnectionError("too many requests")
            answer = dict.fromkeys(judge.MARKS, 5) if judged else next(self.written).model_dump(include={"messages"})
            text, read = json.dumps(answer, ensure_ascii=False), sum(len(m["content"]) for m in messages)
            self.costs["marks" if judged else "dialogues"].append(read + len(text))
        time.sleep(self.seconds)
        return Reply(text, True, len(text), read) if self.counts else Reply(text, True, 0)

    @property
    def cost(self) -> int:
        return sum(map(sum, self.costs.values()))


def cell_of_01(model, folder, material, card, examples, weights="w", **parameters) -> dict:
    """The names after the cell of 01 that asks `model` for a dialogue for each of forty orders."""
    plain = [o for o in draw_orders(material, card, 400, seed=1) if card.levels[o.level].register_ == "plain"]

    @contextlib.contextmanager
    def endpoint_client(*whom, **options):
        yield model, weights

    usual = {"endpoint": "own", "endpoint_model": None, "base_model": "tiny", "generate": 40, "judge_minimum": 4}
    usual |= {"token_budget": None, "concurrency": 2, "folder": folder}
    names = {"cfg": SimpleNamespace(**usual | parameters), "card": card, "drawn": plain[:40], "written": []}
    names |= {"parts": SimpleNamespace(train=examples), "reserved": NOTHING, "endpoint_client": endpoint_client}
    cells = json.loads((ROOT / "notebooks" / "01_data.ipynb").read_text(encoding="utf-8"))["cells"]
    (source,) = (source for cell in cells if "judge.keep_good(" in (source := "".join(cell["source"])))
    names |= {"batch": batch, "judge": judge, "writer": generate}
    exec(source, names)
    return names


def test_orders_are_seeded_and_spread(material, card):
    orders = draw_orders(material, card, 540, seed=3)
    assert orders == draw_orders(material, card, 540, seed=3) != draw_orders(material, card, 540, seed=4)
    assert len({o.id for o in orders}) == 540
    assert set(Counter(o.level for o in orders).values()) == {540 // len(LEVELS)}
    assert set(Counter(o.emotion for o in orders).values()) == {540 // len(card.emotions)}
    assert max(Counter(o.situation for o in orders).values()) - 540 // len(material.situations) <= 1
    assert 0.3 < sum(bool(o.memories) for o in orders) / 540 < 0.5


def test_an_order_asks_with_the_card_examples_and_the_situation(material, card, examples):
    order = draw_orders(material, card, 1, seed=1)[0]
    system, user = order.request(card, examples).messages
    assert card.name in system["content"] and card.levels[order.level].tone in system["content"]
    assert order.situation in user["content"] and user["content"].count('{"messages"') == 2
    assert SCHEMA["properties"]["messages"]["items"]["properties"]["role"]["enum"] == ["user", "assistant"]


def test_an_interrupted_run_goes_on_and_asks_nothing_twice(material, card, examples, tmp_path):
    """What is under way at the interrupt is answered, paid for and kept."""
    orders = draw_orders(material, card, 60, seed=1)
    first = Model(interrupt_at=25, seconds=0.05)
    with pytest.raises(KeyboardInterrupt):
        go(orders, first, tmp_path, examples, concurrency=4)
    file = tmp_path / "answers.jsonl"
    kept = len(file.read_text(encoding="utf-8").splitlines())
    assert 25 <= kept < 60 and kept == sum(first.asked.values())
    file.write_bytes(file.read_bytes() + b'{"id": "generated-1-0000')  # killed while it wrote
    second = Model()
    result = go(orders, second, tmp_path, examples, concurrency=4)
    assert len(result.answers) == 60 and result.asked == 60 - kept
    assert first.asked + second.asked == Counter(order.seed for order in orders), "each once in both runs together"
    assert first.most <= 4 and second.most <= 4
    assert go(orders, third := Model(), tmp_path, examples).asked == 0 and not third.asked
    assert (
        go(
            orders, Model(), tmp_path, examples, sampling={"model": "another", "max_tokens": 700, "temperature": 0.9}
        ).asked
        == 60
    )


def test_the_log_holds_each_request_with_its_reply(material, card, examples, tmp_path):
    orders = draw_orders(material, card, 3, seed=1)
    go(orders, Model(), tmp_path, examples)
    file = tmp_path / "answers.jsonl"
    logged = {entry["id"]: entry for entry in map(json.loads, file.read_text(encoding="utf-8").splitlines())}
    for order in orders:
        entry = logged[order.id]
        assert entry["messages"] == order.request(card, examples).messages and entry["schema"] == SCHEMA
        assert entry["sampling"] == {"model": "m", "max_tokens": 700, "temperature": 0.9, "seed": order.seed}
        assert str(order.seed) in entry["text"]
    for entry in logged.values():  # as logs were before
        del entry["messages"], entry["schema"], entry["sampling"], entry["prompt_tokens"]
    file.write_text("".join(json.dumps(entry) + "\n" for entry in logged.values()), encoding="utf-8")
    assert go(orders, Model(), tmp_path, examples).asked == 0


def test_a_budget_and_an_endpoint_that_is_gone_stop_the_run(material, card, examples, tmp_path):
    orders = draw_orders(material, card, 100, seed=1)
    spent = go(orders, Model(), tmp_path / "a", examples, concurrency=2, budget=500)
    assert 10 <= len(spent.answers) <= 12 and "500 tokens" in spent.stopped
    again = go(orders, silent := Model(), tmp_path / "a", examples, concurrency=2, budget=500)
    assert not silent.asked and "500 tokens" in again.stopped, "what is spent is spent in the next sitting too"
    gone = go(orders, dead := Model(fails=True), tmp_path / "b", examples, concurrency=2)
    assert not gone.answers and "failed in a row: nobody answers" in gone.stopped
    assert sum(dead.asked.values()) <= batch.MAX_FAILURES + 2


def test_of_a_budget_below_the_whole_some_is_judged_and_kept(material, card, examples, tmp_path):
    def go_on(model, budget, folder="b"):
        found = cell_of_01(model, tmp_path / folder, material, card, examples, token_budget=budget)
        return len(found["made"].accepted)

    accepted = go_on(whole := Writer(examples), None, "a")
    budget, under_way = whole.cost // 2, 2 * max(whole.costs["dialogues"]) + 2 * max(whole.costs["marks"])
    some = go_on(first := Writer(examples), budget)
    assert 0 < some < accepted and first.costs["marks"]
    assert first.cost <= budget + under_way
    assert go_on(silent := Writer([]), budget) == some and not silent.cost, "what is spent is spent"
    assert some < go_on(second := Writer(examples[20:]), budget + budget // 2)
    assert first.cost + second.cost <= budget + budget // 2 + under_way
    assert max(whole.costs["marks"]) < min(whole.costs["dialogues"])
    assert go_on(tiny := Writer(examples), 100, "c") and tiny.cost <= 100 + under_way


def test_answers_and_marks_of_other_weights_or_of_another_endpoint_are_not_taken(material, card, examples, tmp_path):
    def asked(**whose):
        found = cell_of_01(Writer(examples), tmp_path, material, card, examples, concurrency=1, **whose)
        return found["run"].asked, found["marks"].asked > 0

    assert asked(weights="a") == (40, True) and asked(weights="a") == (0, False)
    assert asked(weights="b") == (40, True)
    assert asked(weights="", endpoint="https://one/v1") == (40, True)
    assert asked(weights="", endpoint="https://two/v1") == (40, True)


def test_01_says_what_failed_and_how_fast_it_was(material, card, examples, tmp_path, capsys):
    cell_of_01(Writer(examples, unwell=3), tmp_path, material, card, examples)
    said = capsys.readouterr().out
    assert "failed: {'too many requests': 3}" in said and re.search(r"dialogues: 40 requests in [\d.]+ s, \d", said)
    again = cell_of_01(Writer(examples[-3:], seconds=0.1), tmp_path, material, card, examples)["run"]
    assert again.asked == 3 and again.written < again.tokens / 10
    assert again.speed == again.written / again.seconds


def test_a_budget_needs_an_endpoint_that_counts(material, card, examples, tmp_path):
    orders = draw_orders(material, card, 30, seed=1)
    ask = partial(go, orders, Writer(examples, counts=False), tmp_path, examples, concurrency=2)
    held = ask(budget=10**6)
    assert held.asked <= 4 and held.stopped == "the endpoint does not count tokens: ask it without a budget"
    free = ask()
    assert len(free.answers) == 30 and not free.stopped


def test_the_gate_says_why(material, card, examples):
    orders = [o for o in draw_orders(material, card, 200, seed=1) if card.levels[o.level].register_ == "plain"][:4]
    good = dialogue(7)
    bad = good.replace("どこか打ってない？", "私はAIアシスタントです。")
    for nonsense in ('{"messages": null}', '{"messages": 5}', "[" * 100_000, "5", '{"messages": [3]}'):
        refused = generate.gate(orders[:1], {orders[0].id: batch.Answer(orders[0].id, "", nonsense, 1, 0.1)}, card)
        assert not refused.accepted and refused.refused, nonsense[:20]
    texts = [good, good.replace("7", "７"), bad, good[:50]]
    answers = {o.id: batch.Answer(o.id, "", text, 1, 0.1) for o, text in zip(orders, texts, strict=True)}
    gated = generate.gate(orders, answers, card, examples)
    assert [c.id for c in gated.accepted] == [orders[0].id]
    assert gated.accepted[0].metadata.source == "generated"
    assert gated.by_reason()["near duplicate"] == 1 and gated.by_reason()["not the JSON asked for"] == 1
    assert "assistant_voice" in gated.refused[orders[2].id]


def test_what_begins_as_a_held_out_dialogue_is_refused_and_all_that_is_refused_can_be_read(material, card, tmp_path):
    orders = [o for o in draw_orders(material, card, 200, seed=1) if card.levels[o.level].register_ == "plain"][:2]
    answers = {o.id: batch.Answer(o.id, "", dialogue(n), 1, 0.1) for o, n in zip(orders, (7, 123), strict=True)}
    held_out = orders[0].conversation(answers[orders[0].id].text)
    gated = generate.gate(orders, answers, card, reserved=Reserved(openings=frozenset({first_turn(held_out)})))
    assert gated.refused == {orders[0].id: ["reserved"]} and [c.id for c in gated.accepted] == [orders[1].id]
    generate.write_refused(tmp_path / "refused.jsonl", gated, answers)
    (line,) = (tmp_path / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {"order": orders[0].id, "reasons": ["reserved"], "text": dialogue(7)}
    generate.write_refused(tmp_path / "refused.jsonl", generate.Gated(), {})
    assert (tmp_path / "refused.jsonl").read_text(encoding="utf-8") == ""


def test_01_shows_a_model_nothing_that_is_held_out_and_compares_with_all_of_train():
    cells = json.loads((ROOT / "notebooks" / "01_data.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (split,) = [n for n, source in enumerate(code) if "split.split_dialogues(" in source]
    asking = {n: re.findall(r"\brequest\(card, ([\w.]+)\)", source) for n, source in enumerate(code)}
    shown = {n: examples for n, examples in asking.items() if examples}
    assert min(shown) > split and {e for examples in shown.values() for e in examples} == {"parts.train"}
    assert "writer.gate(drawn, run.answers, card, written, reserved)" in "\n".join(code)
    compared = [source for source in code if "leakage.shared_passages(" in source or "leakage.nearest(" in source]
    assert len(compared) == 2 and all("in train" in source and "in parts.train" not in source for source in compared)


def test_the_judge_keeps_what_has_no_low_mark(material, card):
    said = {"a": "おかえり", "b": "やっと帰ってきた", "c": "遅かったね", "d": "ごはんあるよ"}
    first, second, third, fourth = (
        Conversation(id=n, messages=[{"role": "user", "content": "ただいま"}, {"role": "assistant", "content": reply}])
        for n, reply in said.items()
    )
    asked = judge.request(first, card)
    assert "おかえり" in asked.messages[1]["content"] and card.levels["friend"].tone in asked.messages[0]["content"]
    marks = {"a": (5, 4, 4), "b": (5, 2, 1), "c": (9, 9, 9)}
    answers = {
        name: batch.Answer(name, "", json.dumps(dict(zip(judge.MARKS, m, strict=True))), 1, 0.1)
        for name, m in marks.items()
    }
    answers["d"] = batch.Answer("d", "", "9" * 5000, 1, 0.1)
    gated = generate.Gated([first, second, third, fourth], {"e": ["voice"]})
    judged = judge.keep_good(gated, answers, minimum=4)
    assert judged.accepted == [first]
    assert judged.refused == {
        "e": ["voice"],
        "b": ["judge: in_character", "judge: fits"],
        "c": ["not judged"],
        "d": ["not judged"],
    }


def test_material_that_is_none_is_one_sentence(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("situations: []\nmemories: [a]\n", encoding="utf-8")
    with pytest.raises(ValueError, match="s.yaml needs two lists"):
        read_material(file)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_material(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(("allowed", "asked"), [((1024, 4096), (1536, 4096)), ((1024, 1100), (1100, 1100))])
def test_a_thousand_connections_are_asked_for_where_a_shell_allows_fewer(allowed, asked, monkeypatch):
    set_to = []
    monkeypatch.setattr(batch.resource, "getrlimit", lambda _: allowed)
    monkeypatch.setattr(batch.resource, "setrlimit", lambda _, limits: set_to.append(limits))
    batch._allow_connections(24)
    batch._allow_connections(1024)
    assert set_to == [asked]
