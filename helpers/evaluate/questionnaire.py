"""The questionnaire: people judge blinded samples on five questions, 1 to 5.

In: transcripts of all arms, a SQLite file. Out: a form that saves each answer at once, and the answers. The arm's name
stands in the database only, never in what the rater sees; a rater who comes back goes on at the first open sample. For
raters without a notebook there is `ratings_page`.
"""

import html
import secrets
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from helpers.evaluate.arms import Transcript
from helpers.files import sha256_json

QUESTIONS = {
    "character": "この人らしさが、最後まで保たれていましたか？",
    "emotion": "気持ちの表し方は、自然でしたか？",
    "relevance": "相手の言葉に、きちんと応えていましたか？",
    "particles": "語尾や相づちの言葉づかいは、しっくりきましたか？",
    "overall": "全体として、また話したいと思いましたか？",
}
SCALE = (1, 2, 3, 4, 5)
_CLOCK = "%Y-%m-%d %H:%M:%S"  # as SQLite writes it
_ASK_NAME = "お名前を書いて、Enterを押してください。"
_THANKS = "すべて終わりました。ありがとうございました。"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (
    id TEXT PRIMARY KEY, arm TEXT NOT NULL, unit TEXT NOT NULL, sample INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS ratings (
    sample TEXT NOT NULL, rater TEXT NOT NULL, question TEXT NOT NULL,
    value INTEGER NOT NULL CHECK (value BETWEEN 1 AND 5),
    at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (sample, rater, question));
CREATE TABLE IF NOT EXISTS secret (only INTEGER PRIMARY KEY CHECK (only = 1), salt TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Sample:
    """What a rater sees: the dialogue, and an id from which nobody without the database can tell the arm."""

    id: str
    dialogue: tuple[tuple[str, str], ...]


def blind(transcripts: Iterable[Transcript], db: Path, seed: int, per_arm: int = 8) -> list[Sample]:
    """The same `per_arm` scenarios of each arm, in random order; which sample is whose goes into `db` alone.

    Ids and order come from a secret that stays in `db`: another one has others, the same one always the same.
    """
    salt = _salt(db)
    played = [t for t in transcripts if t.kind == "scenario" and t.sample == 0]
    units = sorted({t.unit for t in played})
    chosen = set(Random(seed).sample(units, min(per_arm, len(units))))
    samples, whose = [], []
    for t in (t for t in played if t.unit in chosen):
        said = zip(t.user_turns, (r.text for r in t.replies), strict=True)
        lines = [line for turn, reply in said for line in (("user", turn), ("her", reply))]
        sample_id = sha256_json([salt, t.arm, t.unit, lines])[:12]
        samples.append(Sample(sample_id, tuple(lines)))
        whose.append((sample_id, t.arm, t.unit, t.sample))
    with closing(_open(db)) as connection, connection:
        connection.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?)", whose)
    return sorted(samples, key=lambda sample: sample.id)


def arms_and_units(db: Path) -> dict[str, tuple[str, str]]:
    """Sample id → the arm and the scenario that it comes from."""
    with closing(_open(db)) as connection:
        return {row[0]: row[1:] for row in connection.execute("SELECT id, arm, unit FROM samples")}


def save_rating(db: Path, sample_id: str, rater: str, question: str, value: int) -> None:
    """Save one answer, on disk when this returns; a second answer to the same question replaces the first.

    Raises:
        ValueError: no such question, or a value outside 1–5.
    """
    if question not in QUESTIONS:
        raise ValueError(f"There is no question {question!r}: use one of {', '.join(QUESTIONS)}.")
    if value not in SCALE:
        raise ValueError(f"A rating is a whole number from 1 to 5, not {value!r}.")
    save_ratings(db, rater, [(sample_id, question, value, datetime.now(UTC))])


def save_ratings(db: Path, rater: str, given: Iterable[tuple[str, str, int, datetime]]) -> None:
    """Save answers of `rater`, all or none: sample id, question, value, and when. Of two to the same question the later
    stays."""
    rows = [(sample, rater, question, value, f"{at.astimezone(UTC):{_CLOCK}}") for sample, question, value, at in given]
    with closing(_open(db)) as connection, connection:
        connection.executemany(
            "INSERT INTO ratings VALUES (?, ?, ?, ?, ?) ON CONFLICT (sample, rater, question) "
            "DO UPDATE SET value = excluded.value, at = excluded.at WHERE excluded.at >= ratings.at",
            rows,
        )


def load_ratings(db: Path, samples: Iterable[Sample]) -> list[dict]:
    """The answers about `samples`, with the arm that each came from: arm, unit, sample, rater, question, value, at.
    Those about replies that an arm no longer gives, since it was trained again, stay in `db` and are not among them."""
    asked = {sample.id for sample in samples}
    with closing(_open(db)) as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute(
            "SELECT arm, unit, ratings.sample, rater, question, value, at FROM ratings "
            "JOIN samples ON samples.id = ratings.sample ORDER BY at, ratings.sample, question"
        )
        return [dict(row) for row in found if row["sample"] in asked]


def by_sample(ratings: Sequence[dict], question: str) -> dict[str, list[int]]:
    """Sample id → the values that its raters gave to `question`."""
    values = defaultdict(list)
    for rating in ratings:
        if rating["question"] == question:
            values[rating["sample"]].append(rating["value"])
    return dict(values)


def answers(db: Path, sample_id: str, rater: str) -> dict[str, int]:
    """question → value, of one rater for one sample."""
    with closing(_open(db)) as connection:
        found = connection.execute(
            "SELECT question, value FROM ratings WHERE sample = ? AND rater = ?", (sample_id, rater)
        )
        return dict(found.fetchall())


def next_sample(db: Path, samples: Sequence[Sample], rater: str) -> Sample | None:
    """The first sample that `rater` has not answered in full; None when all are done."""
    return next((s for s in samples if len(answers(db, s.id, rater)) < len(QUESTIONS)), None)


def form(db: Path, samples: Sequence[Sample]):
    """The form as an ipywidgets box: who answers writes a name, then sees one sample at a time, in an order of his own,
    with five questions; each click is saved at once. Another name is another rater; a name that was there before goes
    on where it stopped."""
    import ipywidgets as widgets

    name = widgets.Text(description="お名前", placeholder="仮名でかまいません", continuous_update=False)
    shown, progress = widgets.HTML(), widgets.Label()
    style = {"description_width": "initial", "button_width": "3em"}
    asked = {q: widgets.ToggleButtons(options=SCALE, value=None, style=style) for q in QUESTIONS}
    onward = widgets.Button(description="次へ")
    state: dict[str, Sample | None] = {"sample": None}

    def show() -> None:
        state["sample"] = None  # Filling the buttons in is no answer.
        rater = name.value.strip()
        ordered = sorted(samples, key=lambda s: sha256_json([rater, s.id]))
        sample = next_sample(db, ordered, rater) if rater else None
        given = answers(db, sample.id, rater) if sample else {}
        for question, buttons in asked.items():
            buttons.value, buttons.disabled = given.get(question), sample is None
        onward.disabled = sample is None
        done = len(ordered) if sample is None else ordered.index(sample)
        progress.value = f"{done} / {len(ordered)}" if rater else ""
        if sample:
            shown.value = dialogue_html(sample.dialogue)
        else:
            shown.value = f"<p>{_THANKS if rater else _ASK_NAME}</p>"
        state["sample"] = sample

    def saver(question: str):
        def save(change: dict) -> None:
            if state["sample"] is not None and change["new"] is not None:
                save_rating(db, state["sample"].id, name.value.strip(), question, change["new"])

        return save

    for question, buttons in asked.items():
        buttons.observe(saver(question), names="value")
    onward.on_click(lambda _: show())
    name.observe(lambda _: show(), names="value")
    show()
    lines = [
        widgets.VBox([widgets.Label(f"{text}（1：まったく　5：とても）"), asked[q]]) for q, text in QUESTIONS.items()
    ]
    return widgets.VBox([name, progress, shown, *lines, onward])


def dialogue_html(dialogue: Iterable[tuple[str, str]]) -> str:
    """Turns as bubbles: the user's on the left, hers on the right; every text is escaped."""
    bubbles = []
    for who, text in dialogue:
        side, colour = ("left", "#eef1f5") if who == "user" else ("right", "#fbe6ee")
        bubbles.append(
            f'<div style="text-align:{side};margin:4px 0">'
            f'<span style="display:inline-block;background:{colour};color:#222;'
            f'border-radius:10px;padding:6px 10px;max-width:75%;text-align:left;white-space:pre-wrap">'
            f"{html.escape(text) or '（無言）'}</span></div>"
        )
    return f'<div style="max-width:46em">{"".join(bubbles)}</div>'


def _salt(db: Path) -> str:
    with closing(_open(db)) as connection, connection:
        connection.execute("INSERT OR IGNORE INTO secret VALUES (1, ?)", (secrets.token_hex(16),))
        return connection.execute("SELECT salt FROM secret").fetchone()[0]


def _open(db: Path) -> sqlite3.Connection:
    db.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(db)
    connection.executescript(_SCHEMA)
    return connection
