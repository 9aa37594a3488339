"""What people really hand in: two hundred broken files, one enormous line, and words that look like control tokens."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import jsonl
from helpers.control_tokens import defuse
from helpers.conversations import read_conversations


def line(name: str, *turns: object, roles: tuple[str, ...] = ("user", "assistant")) -> dict:
    return {"id": name, "messages": [{"role": roles[i % len(roles)], "content": t} for i, t in enumerate(turns)]}


def utf8(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8")


# Each makes one line that cannot be used; the reason given for it must match the pattern.
BROKEN = {
    "cut off": (lambda n: utf8(line(n, "ただいま", "おかえり"))[:-7], "not JSON"),
    "Shift_JIS": (
        lambda n: json.dumps(line(n, "眠い", "寝て"), ensure_ascii=False).encode("cp932"),
        "Shift_JIS, not UTF-8",
    ),
    "half a character": (lambda n: utf8(line(n, "うん", "ね"))[:-9] + b"\xe3\x81" + b'"}]}', "not UTF-8"),
    "a raw NUL": (lambda n: utf8(line(n, "あ\0い", "う")).replace(b"\\u0000", b"\0"), "not JSON"),
    "an escaped NUL": (lambda n: utf8(line(n, "あ\0い", "う")), "control character U\\+0000"),
    "a lone surrogate": (lambda n: json.dumps(line(n, "\ud83d", "え")).encode(), "half a character"),
    "cut off after half a character": (lambda n: json.dumps(line(n, "\ud83d", "え")).encode()[:-3], "not JSON"),
    "nested deeply": (lambda n: b'{"id":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested too deeply"),
    "a huge number": (lambda n: b'{"id":' + b"9" * 5_000 + b"}", "thousands of digits"),
    "an id twice": (lambda n: utf8(line("good-0", "もしもし", "はーい")), "used before, in"),
    "roles swapped": (lambda n: utf8(line(n, "やあ", "おはよ", roles=("assistant", "user"))), "turn 1 is assistant's"),
    "a role unknown": (lambda n: utf8(line(n, "やあ", "おはよ", roles=("user", "bot"))), "role"),
    "no reply": (lambda n: utf8(line(n, "やあ", "おはよ", "ねえ")), "reply is missing"),
    "an empty turn": (lambda n: utf8(line(n, "やあ", " \u3000\n")), "the turn is empty"),
    "a number for text": (lambda n: utf8(line(n, 42, "うん")), "messages.0.content: .*string"),
    "null for text": (lambda n: utf8(line(n, "ねえ", None)), "messages.1.content: .*string"),
    "a key too many": (lambda n: utf8(line(n, "ねえ", "なに") | {"mood": "happy"}), "mood"),
    "no messages": (lambda n: utf8({"id": n}), "messages: .*required"),
    "a list": (lambda n: b'["user", "assistant"]', "not an object"),
    "a bare word": (lambda n: "こんにちは".encode(), "not JSON"),
}


@st.composite
def files(draw):
    """(bytes of a file, ids of its good lines, for each bad line its number and the pattern of its reason)."""
    kinds = draw(st.lists(st.sampled_from([None, *BROKEN]), max_size=12))
    lines, good, bad = [utf8(line("good-0", "ただいま", "おかえり"))], ["good-0"], {}
    for number, kind in enumerate(kinds, start=2):
        if kind is None:
            good.append(f"good-{number}")
            lines.append(
                utf8(line(f"good-{number}", draw(st.text(min_size=1, max_size=20).filter(_says_something)), "うん"))
            )
        else:
            make, reason = BROKEN[kind]
            lines.append(make(f"bad-{number}"))
            bad[number] = reason
    newline = draw(st.sampled_from([b"\n", b"\r\n"]))
    return (
        draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + newline.join(lines) + draw(st.sampled_from([b"", newline])),
        good,
        bad,
    )


def _says_something(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(files())
def test_good_lines_are_kept_and_each_bad_one_has_its_place_and_reason(tmp_path, case):
    raw, good, bad = case
    file = tmp_path / "chats.jsonl"
    file.write_bytes(raw)
    reading = read_conversations(file)
    assert [c.id for c in reading.conversations] == good
    assert [b.line for b in reading.quarantine] == list(bad)
    for found in reading.quarantine:
        assert re.search(bad[found.line], found.reason), found
        assert found.file == "chats.jsonl" and found.text and "\n" not in found.reason and len(found.reason) < 300
    jsonl.write_quarantine(tmp_path / "quarantine.jsonl", reading.quarantine)
    kept = [json.loads(entry) for entry in (tmp_path / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [entry["line"] for entry in kept] == list(bad)


def test_a_line_of_100_megabytes_is_set_aside_without_being_read_into_memory(tmp_path):
    file = tmp_path / "big.jsonl"
    with file.open("wb") as stream:
        stream.write(utf8(line("a", "ただいま", "おかえり")) + b'\n{"id":"')
        stream.seek(100_000_000, 1)
        stream.write(b'"}\n' + utf8(line("b", "おやすみ", "うん、また明日")))
    reading = read_conversations(file)
    assert [c.id for c in reading.conversations] == ["a", "b"]
    (bad,) = reading.quarantine
    assert bad.line == 2 and bad.reason.startswith("the line is 100,000,0") and len(bad.text) <= 10_000


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not JSON"),
        (b'{"dialogues": []}', "neither a list nor"),
        (b'{"conversations": {"a": 1}}', "neither a list nor"),
        ('[{"messages": []}]'.encode("utf-16"), "UTF-16, not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_document_that_cannot_be_used_is_one_sentence(tmp_path, raw, reason):
    file = tmp_path / "guide.json"
    file.write_bytes(raw)
    (bad,) = read_conversations(file).quarantine
    assert reason in bad.reason and bad.line == 1


def test_bad_items_of_a_document_leave_the_others(tmp_path):
    file = tmp_path / "guide.json"
    items = [
        line("a", "やあ", "おはよ"),
        line("b", "\ud83d", "え"),
        3,
        line("c", "ねえ"),
        line("d", "ただいま", "おかえり"),
    ]
    file.write_text(json.dumps({"conversations": items}), encoding="utf-8")
    reading = read_conversations(file)
    assert [c.id for c in reading.conversations] == ["a", "d"]
    assert [b.line for b in reading.quarantine] == [2, 3, 4]
    assert "half a character" in reading.quarantine[0].reason


@pytest.mark.parametrize(
    "token",
    ["<|im_start|>", "<|im_end|>", "<end_of_turn>", "<start_of_turn>", "</s>", "<s>", "[INST]", "[/INST]", "<<SYS>>",
     "<|eot_id|>", "<|endoftext|>", "[gMASK]", "<reserved_106>", "<unused0>", "<bos>", "<|start_header_id|>",
     "[control_8]", " sop ", " eop ", "### Instruction:", "### Response:"],
)  # fmt: skip
def test_no_control_token_is_left_in_what_somebody_says(tmp_path, token):
    file = tmp_path / "a.jsonl"
    said = f"ねえ{token}user\nこれ読める？{token}"
    file.write_bytes(utf8(line("a", said, f"うん{token}")))
    messages = read_conversations(file).conversations[0].messages
    assert all(token.strip() not in m.content for m in messages)
    assert len(messages[0].content) == len(said.strip())


@pytest.mark.parametrize(
    "text",
    ["<3", "a < b > c", "[笑]", "1<2", "(>_<)", "＞＜", "[a]", "ｷﾀ━(ﾟ∀ﾟ)━!", "soprano SOP", "### まとめ:", "[control]"],
)
def test_what_only_resembles_a_control_token_stays(text):
    assert defuse(text) == text
