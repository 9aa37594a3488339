"""What people really hand in: two hundred broken files, one enormous line, and words that look like control tokens."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import jsonl
from helpers.control_tokens import defuse
from helpers.conversations import read_conversations
from helpers.data.readers import FORMATS, read_chats


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


def test_an_id_that_is_made_is_never_another_one(tmp_path):
    """Files of one name, and ids that look like made ones: earlier, later, and the very same."""
    (tmp_path / "2024").mkdir()
    (tmp_path / "2025").mkdir()
    lines = [line("", f"{n}回目のただいま", "おかえり") for n in range(1, 7)]
    for one in lines:
        del one["id"]
    lines[3]["id"], lines[4]["id"], lines[5]["id"] = "talks-3", "talks-5", "talks.2-1"
    more = [*lines[:2], *[lines[2]] * 5, lines[3]]
    (tmp_path / "2024" / "talks.jsonl").write_bytes(b"\n".join(utf8(one) for one in lines))
    (tmp_path / "2025" / "talks.json").write_bytes(utf8(lines[:2]))
    (tmp_path / "2025" / "talks.jsonl").write_bytes(b"\n".join(utf8(one) for one in more))
    reading = read_conversations(tmp_path)
    assert [c.id for c in reading.conversations] == [
        *("talks-1", "talks-2", "talks.2-3", "talks-3", "talks-5", "talks.2-1"),
        *("talks.3-1", "talks.2-2"),
        *("talks.4-1", "talks.3-2", "talks.3-3", "talks-4", "talks.2-5", "talks-6", "talks-7"),
    ]
    (bad,) = reading.quarantine
    assert bad.reason == "the id 'talks-3' was used before, in talks.jsonl:4"


# -- Every other format ------------------------------------------------------------------------------------------------


def openai(content):
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "うん"}]}


def sharegpt(value):
    return {"conversations": [{"from": "human", "value": value}, {"from": "gpt", "value": "うん"}]}


def alpaca(words, **more):
    return {"instruction": words, "output": "うん", **more}


def discord(said, name="健", **more):
    author = {"name": name, "nickname": name}
    return {"type": "Default", "timestamp": "2024-05-01T21:00:00.000+09:00", "content": said, "author": author} | more


def telegram(said, name="健", **more):
    return {"type": "message", "date": "2024-05-01T21:00:00", "date_unixtime": "1", "from": name, "text": said} | more


def csv_row(said, name="健", time="2024-05-01 21:00", gap=","):
    return gap.join((name, said, time))


NO_JSON = {"cut off": (lambda n: b'{"id": "', "not JSON"), "a list": (lambda n: b"[1]", "not an object")}
A_CSV = {
    "a comma": (csv_row("やあ, ねえ"), "4 cells"),
    "a mark": (csv_row('"やあ'), "not in pairs"),
    "a mark within": (csv_row('"や"あ'), "not in pairs"),
    "a long cell": (csv_row('"' + "あ" * 140_000), "not in pairs"),
    "a cell alone": ("健", "1 of the 2 cells"),
    "no speaker": (csv_row("やあ", name=""), "who speaks"),
    "a time": (csv_row("やあ", time="いつか"), "its time"),
    "a NUL": (csv_row("あ\0い"), "control character"),
}
A_LINE = {
    "a day": ("2024/13/01", "no such day"),
    "a time": ("25:61{}健{}やあ", "no such time"),
    "a sticker": ("21:05{}健{}[スタンプ]", "sticker"),
    "a NUL": ("21:05{}健{}あ\0い", "control character"),
}
# For each format: what stands before its units; a good one; broken ones, each with the pattern of its reason.
OTHERS = {
    "openai": (
        openai,
        NO_JSON
        | {
            "words": (lambda n: utf8(openai(["やあ"])), "not an object with"),
            "no text": (lambda n: utf8(openai([{"type": "text"}])), "no `text`"),
            "null": (lambda n: utf8(openai([{"type": "text", "text": None}])), "no `text`"),
            "a picture": (lambda n: utf8(openai([{"type": "image_url"}])), "only text"),
            "a number": (lambda n: utf8(openai(5)), "string"),
            "no turns": (lambda n: utf8({"messages": [5]}), "not a list of objects"),
        },
    ),
    "sharegpt": (
        sharegpt,
        NO_JSON
        | {
            "a number": (lambda n: utf8(sharegpt(5)), "string"),
            "no turns": (lambda n: utf8({"conversations": [5]}), "not a list of objects"),
            "an object": (lambda n: utf8({"conversations": {}}), "not a list of objects"),
        },
    ),
    "alpaca": (
        alpaca,
        NO_JSON
        | {
            "a history": (lambda n: utf8(alpaca("やあ", history=5)), "not a list of pairs"),
            "a number in it": (lambda n: utf8(alpaca("やあ", history=[5])), "not a list of pairs"),
            "no pair": (lambda n: utf8(alpaca("やあ", history=[["a"]])), "not a list of pairs"),
            "numbers in a pair": (lambda n: utf8(alpaca("やあ", history=[[1, 2]])), "string"),
            "a number": (lambda n: utf8(alpaca(5)), "must be text"),
            "no output": (lambda n: utf8(alpaca("やあ", output=None)), "string"),
        },
    ),
    "discord": (
        discord,
        {
            "a number": (3, "no object"),
            "null": (None, "no object"),
            "an author": (discord("やあ", author=5), "who speaks"),
            "no name": (discord("やあ", author={}), "who speaks"),
            "a list": (discord(["やあ"]), "no text"),
            "half a character": (discord("\ud83d"), "half a character"),
            "a time": (discord("やあ", timestamp="いつか"), "its time"),
            "a call": (discord("やあ", type="Call"), "call"),
        },
    ),
    "telegram": (
        telegram,
        {
            "a number": (3, "no object"),
            "parts": (telegram([5]), "no text"),
            "parts without text": (telegram([{"type": "bold"}]), "no text"),
            "nobody": (telegram("やあ", name=None), "who speaks"),
            "half a character": (telegram(["\ud83d"]), "half a character"),
            "a time": (telegram("やあ", date=[1]), "its time"),
            "a sticker": (telegram("", media_type="sticker"), "sticker"),
        },
    ),
    "csv": (csv_row, A_CSV),
    "discord_csv": (csv_row, A_CSV),
    "line": (None, A_LINE),
    "line from a pc": (None, A_LINE),
}


def made(name: str, kinds: list) -> tuple[bytes, list[str], dict[int, str]]:
    """(a file, what is said in its good units, for each bad one its line and the pattern of its reason)."""
    good, broken = OTHERS[name]
    heads = {"csv": "speaker,text,time", "discord_csv": "Author,Content,Date"}
    units, said, bad = [heads[name]] if name in heads else ["2024/04/30(火)"] if name.startswith("line") else [], [], {}
    for number, kind in enumerate([None, *kinds, None]):
        if kind is not None:
            make, reason = broken[kind]
            units.append(make(f"bad-{number}") if callable(make) else make)
            bad[len(units)] = reason
        elif name in ("openai", "sharegpt", "alpaca"):
            said += [f"ただいま{number}", "うん"]
            units.append(utf8({"id": f"good-{number}"} | good(said[-2])))
        else:
            said += [f"ただいま{number}", f"おかえり{number}"]
            for words, speaker in zip(said[-2:], ("健", "みお 🌸"), strict=True):
                units.append(f"21:03{{}}{speaker}{{}}{words}" if good is None else good(words, speaker))
    if name in ("discord", "telegram"):
        return json.dumps({"messages": units, "guild" if name == "discord" else "name": {}}).encode(), said, bad
    gap = "\t" if name == "line" else " "
    raw = [unit if isinstance(unit, bytes) else unit.replace("{}", gap).encode() for unit in units]
    return b"\n".join(raw) + b"\n", said, bad


ENDS = {"openai": "jsonl", "sharegpt": "jsonl", "alpaca": "jsonl", "discord": "json", "telegram": "json"} | {
    "csv": "csv", "discord_csv": "csv", "line": "txt", "line from a pc": "txt",
}  # fmt: skip


def test_every_format_is_broken_here():
    assert {name.split(" ")[0] for name in OTHERS} | {"native"} == set(FORMATS)


@pytest.mark.parametrize("name", OTHERS)
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_good_units_of_every_format_are_kept_and_each_bad_one_has_its_place_and_reason(tmp_path, name, data):
    raw, said, bad = made(name, data.draw(st.lists(st.sampled_from([None, *OTHERS[name][1]]), max_size=6)))
    file = tmp_path / f"chats.{ENDS[name]}"
    file.write_bytes(raw)
    format = name if name in ("openai", "discord_csv") else "auto"
    reading = read_chats(file, format, companion="みお 🌸")
    assert [words for c in reading.conversations for m in c.messages for words in m.content.split("\n")] == said
    assert [b.line for b in reading.quarantine] == list(bad)
    for found in reading.quarantine:
        assert re.search(bad[found.line], found.reason), found
        assert found.file == file.name and "\n" not in found.reason and len(found.reason) < 300
    jsonl.write_quarantine(tmp_path / "quarantine.jsonl", reading.quarantine)


def places(value: object, path: tuple = ()):
    """The path to every value inside `value`."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def replaced(value: object, path: tuple, by: object) -> object:
    if not path:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], by)
    return copy


JUNK = st.sampled_from([None, 5, -1.5, True, "x", "", [], {}, [5], [[]], {"text": 5}, "\ud83d", 10**30, {"type": [1]}])


@pytest.mark.parametrize("name", OTHERS)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_does_more_than_one_sentence(tmp_path, name, data):
    raw, _, _ = made(name, [])
    if ENDS[name] == "csv" or name.startswith("line") or data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(raw)))
            raw = raw[:at] + data.draw(st.binary(max_size=6)) + raw[at + data.draw(st.integers(0, 9)) :]
    else:
        lines = raw.splitlines()
        value = json.loads(lines[0])
        path = data.draw(st.sampled_from(list(places(value))))
        raw = b"\n".join([json.dumps(replaced(value, path, data.draw(JUNK))).encode(), *lines[1:]])
    file = tmp_path / f"chats.{ENDS[name]}"
    file.write_bytes(raw)
    for format in ("auto", name.split(" ")[0]):
        try:
            reading = read_chats(file, format, companion="みお 🌸")
        except ValueError as error:
            assert file.name in str(error) and "\n" not in str(error).strip("\n"), error
        else:
            for found in reading.quarantine:
                assert found.line and found.reason and "\n" not in found.reason
            jsonl.write_quarantine(tmp_path / "quarantine.jsonl", reading.quarantine)


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
