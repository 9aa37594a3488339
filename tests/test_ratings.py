"""People's ratings: they are of what an arm says today; means, differences, agreement and power are right; the page
runs alone and hides the arms, its file is taken or refused in one sentence."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from helpers.evaluate import agreement, opinions, power, questionnaire, ratings_page
from helpers.evaluate.arms import Transcript
from helpers.evaluate.questionnaire import QUESTIONS
from helpers.files import sha256_json
from helpers.replies import Reply

ARMS = ("base_persona", "lora")
WORDS = "え、それ大変。</script><!-- <b>ね</b>\n\u2028約束だよ"


@pytest.fixture
def db(tmp_path) -> Path:
    return tmp_path / "ratings.sqlite"


@pytest.fixture
def transcripts() -> list[Transcript]:
    return [
        Transcript(arm, "scenario", f"scene-{n}", "friend", 0, [f"{n}個だよ", "ね"], None, [Reply(WORDS, True, 1)] * 2)
        for arm in ARMS
        for n in range(3)
    ]


@pytest.fixture
def samples(transcripts, db):
    return questionnaire.blind(transcripts, db, seed=0)


@pytest.fixture
def page(samples, tmp_path) -> Path:
    ratings_page.write_page(tmp_path / "ratings.html", samples, "さくら")
    return tmp_path / "ratings.html"


# --- of today's replies


def test_answers_about_what_has_changed_are_not_counted_and_those_about_the_rest_stay(transcripts, samples, db):
    for sample in samples:
        questionnaire.save_rating(db, sample.id, "a", "overall", 2)
    retrained = transcripts[-1]
    retrained.replies = [Reply("うん、聞いてるよ", True, 1)] * 2
    reworded = transcripts[-2]
    reworded.user_turns = ["言い方を変えたよ", "ね"]
    again = questionnaire.blind(transcripts, db, seed=0)
    whose, answered = questionnaire.arms_and_units(db), questionnaire.load_ratings(db, again)
    assert len(again) == len(samples) == 6 and len({s.id for s in again} - {s.id for s in samples}) == 2
    assert sorted((r["arm"], r["unit"]) for r in answered) == sorted(
        (t.arm, t.unit) for t in transcripts if t not in (retrained, reworded)
    )
    asked_again = {whose[s.id] for s in again if not questionnaire.answers(db, s.id, "a")}
    assert asked_again == {(t.arm, t.unit) for t in (retrained, reworded)}
    assert len(questionnaire.load_ratings(db, samples)) == 6, "nothing is lost"


# --- means and differences


def rated(arm: str, unit: int, rater: str, value: int, question: str = "overall") -> dict:
    return {"arm": arm, "unit": f"s{unit}", "rater": rater, "question": question, "value": value}


def test_a_mean_has_an_interval_over_scenarios_and_their_raters():
    ratings = [rated("lora", n, rater, 1 + (n + more) % 5) for n in range(20) for more, rater in enumerate("abc")]
    ratings += [rated("base", 0, "a", 4), rated("base", 0, "b", 5)]
    lora, base = opinions.means(ratings, 500, 0)
    assert len(lora) == len(opinions.COLUMNS) and lora[0] == "lora" and lora[1] == "–" and lora[-1] == "60"
    mean, low, high = map(float, re.findall(r"\d\.\d\d", lora[5]))
    assert low < mean == 3.0 < high and high - low < 1.2
    assert base[5] == "4.50 (1 scenario)", "one scenario has no spread to tell an interval from"
    one_each = opinions.means([r for r in ratings if r["rater"] == "a" and r["arm"] == "lora"], 500, 0)[0][5]
    _, wider_low, wider_high = map(float, re.findall(r"\d\.\d\d", one_each))
    assert wider_high - wider_low > high - low


def test_two_arms_are_compared_where_the_same_person_rated_both_in_the_same_scenario():
    ratings = []
    for n in range(8):
        for strict, rater in enumerate("abc"):
            ratings += [rated("lora", n, rater, 4 - strict + n % 2), rated("base", n, rater, 3 - strict)]
        ratings.append(rated("base", n, "d", 5))  # did not see the other
    found = opinions.differences(ratings, [("lora", "base"), ("dpo", "lora")], 500, 0)
    assert list(found) == [("lora", "base", "overall")]
    difference = found["lora", "base", "overall"]
    assert difference.mean == 1.5 and difference.n == 8 and 1 <= difference.low < 1.5 < difference.high <= 2
    ((arms, question, n, shown, p, verdict),) = opinions.difference_table(found)
    assert (arms, question, n, verdict) == ("lora − base", "overall", "8", "better") and str(difference) == shown
    assert float(p) < 0.05
    (few,) = opinions.difference_table(
        opinions.differences([r for r in ratings if r["unit"] < "s5"], [("lora", "base")], 500, 0)
    )
    assert few[2:] == ["5", "–", "–", "it takes 6 scenarios"]


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([0, 0, 1, 0] * 5, "better, but too little to be felt"),
        ([1, -1] * 10, "no difference shown"),
        ([-1] * 20, "worse"),
    ],
)
def test_a_difference_is_told_in_words(gains, verdict):
    ratings = [rated("base", n, "a", 3) for n in range(20)]
    ratings += [rated("lora", n, "a", 3 + gain) for n, gain in enumerate(gains)]
    ((*_, said),) = opinions.difference_table(opinions.differences(ratings, [("lora", "base")], 2000, 0))
    assert said == verdict


# --- agreement

PUBLISHED = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""


def each_its_own(samples: dict) -> dict[str, str]:
    """A scenario a sample."""
    return {sample: sample for sample in samples}


def test_alpha_is_the_published_one():
    """Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, example C: 0.815 for ordinal values."""
    raters = [line.split() for line in PUBLISHED.split("\n") if line]
    units = {str(n): [int(v) for v in column if v != "."] for n, column in enumerate(zip(*raters, strict=True))}
    found = agreement.alpha(units, each_its_own(units), (1, 2, 3, 4, 5), draws=500, seed=0)
    assert found.value == pytest.approx(0.815, abs=5e-4)
    assert found.n == 11 and found.low < found.value < found.high <= 1
    assert found.verdict == "not shown that people agree", "the value would be reliable, the lower end is not"


def test_alpha_of_chance_is_about_zero_and_of_one_mind_one():
    random = np.random.default_rng(0)
    noise = {str(n): list(random.integers(1, 6, size=3)) for n in range(200)}
    same = {str(n): [int(random.integers(1, 6))] * 3 for n in range(200)}
    chance, one_mind = (agreement.alpha(u, each_its_own(u), (1, 2, 3, 4, 5), 300, 0) for u in (noise, same))
    assert chance.low < 0 < chance.high and abs(chance.value) < 0.08 and chance.verdict == "not shown that people agree"
    assert one_mind.value == one_mind.low == 1 and one_mind.verdict == "reliable"


def test_what_arms_say_in_one_scenario_is_drawn_together():
    """Eight arms that are rated alike are not much more evidence than one."""
    random = np.random.default_rng(0)
    once = {str(n): [int(v) for v in np.clip(n % 5 + 1 + random.integers(-1, 2, size=2), 1, 5)] for n in range(30)}
    alike = {f"{n} {arm}": values for n, values in once.items() for arm in range(8)}
    units = {sample: sample.split()[0] for sample in alike}
    one, eight, pooled = (
        agreement.alpha(samples, whose, (1, 2, 3, 4, 5), 2000, 0)
        for samples, whose in ((once, each_its_own(once)), (alike, units), (alike, each_its_own(alike)))
    )
    assert (one.n, eight.n) == (30, 240) and (eight.low, eight.high) == pytest.approx((one.low, one.high), abs=0.02)
    assert pooled.high - pooled.low < 0.5 * (eight.high - eight.low)


@pytest.mark.parametrize(
    ("units", "verdict"),
    [
        ({}, "needs two people"),
        ({"a": [3], "b": [4]}, "needs two people"),
        ({"a": [3, 3], "b": [3, 3]}, "everybody gave the same"),
    ],
)
def test_alpha_that_cannot_be_told_is_said_so(units, verdict):
    found = agreement.alpha(units, each_its_own(units), (1, 2, 3, 4, 5), 50, 0)
    assert str(found) == "–" and verdict in found.verdict


@pytest.mark.parametrize("count", [1, 5, 6])
def test_few_scenarios_do_not_show_that_people_agree(count):
    alike = {f"{n} {arm}": [arm, arm] for n in range(count) for arm in (1, 5)}
    found = agreement.alpha(alike, {sample: sample.split()[0] for sample in alike}, (1, 2, 3, 4, 5), 200, 0)
    assert (found.value, found.verdict) == (1, "reliable" if count == 6 else "it takes 6 scenarios")


def test_agreement_is_by_question(samples, db):
    for rater in ("a", "b"):
        for n, sample in enumerate(samples):
            questionnaire.save_rating(db, sample.id, rater, "overall", 1 + n % 5)
            questionnaire.save_rating(db, sample.id, rater, "emotion", 1 + (n if rater == "a" else 5 - n) % 5)
    rows = {row[0]: row for row in agreement.table(questionnaire.load_ratings(db, samples), 100, 0)}
    assert list(rows) == list(QUESTIONS) and {len(row) for row in rows.values()} == {len(agreement.COLUMNS)}
    assert rows["overall"][1:] == ["2", "6", "1.00 [1.00, 1.00]", "it takes 6 scenarios"]
    assert rows["emotion"][1:3] == ["2", "6"] and rows["emotion"][3] < "1" and "needs two" in rows["particles"][-1]


# --- power


@pytest.mark.parametrize("comparisons", [1, 15])
def test_so_many_scenarios_tell_the_arms_apart_as_often_as_said(comparisons):
    spread, random = power.Spread(0.5, 1.0, "made"), np.random.default_rng(0)
    for raters in power.RATERS:
        need = power.needed(spread, raters, comparisons=comparisons)
        assert need.ratings == 2 * raters * need.scenarios
        true = power.DIFFERENCE + random.normal(0, spread.scenarios**0.5, size=(3000, need.scenarios, 1))
        seen = (true + random.normal(0, spread.raters**0.5, size=(3000, need.scenarios, raters))).mean(axis=2)
        hits = stats.ttest_1samp(seen, 0, axis=1).pvalue < power.SIGNIFICANCE / comparisons
        assert hits.mean() == pytest.approx(power.POWER, abs=0.03)


@pytest.mark.parametrize("comparisons", [1, 20])
def test_ratings_all_on_one_side_are_a_difference_of_so_few_scenarios_as_said(comparisons):
    enough = power.fewest(comparisons)
    for count, verdicts in ((enough, {"better"}), (enough - 1, {"no difference shown", "it takes 6 scenarios"})):
        ratings = [rated("base", n, "a", 1) for n in range(count)] + [rated("lora", n, "a", 5) for n in range(count)]
        (found,) = opinions.differences(ratings, [("lora", "base")], 5000, 0).values()
        rows = opinions.difference_table({("lora", "base", str(n)): found for n in range(comparisons)})
        assert {row[-1] for row in rows} <= verdicts


def test_more_raters_or_a_larger_difference_need_fewer_scenarios():
    few, many = power.needed(power.ASSUMED, 1), power.needed(power.ASSUMED, 5)
    assert few.scenarios > many.scenarios and few.ratings < many.ratings
    assert power.needed(power.ASSUMED, 1, difference=1.0).scenarios < few.scenarios
    assert power.needed(power.Spread(0, 0, ""), 1).scenarios == 6
    assert power.needed(power.Spread(0, 0, ""), 1, comparisons=20).scenarios == 10
    assert power.table(power.ASSUMED, comparisons=25)[0][1] > power.table(power.ASSUMED)[0][1] == str(few.scenarios)
    for wrong in ({"difference": 0}, {"comparisons": 0}):
        with pytest.raises(ValueError, match="a difference above 0"):
            power.needed(power.ASSUMED, 1, **wrong)


def test_the_spread_is_found_in_ratings_and_a_strict_rater_does_not_matter():
    random, ratings = np.random.default_rng(1), []
    for unit in range(400):
        true = random.normal(0.3, 0.8)
        for rater, strict in (("a", -1.0), ("b", 0.0), ("c", 2.0)):
            noise = random.normal(0, 0.6)
            for arm, value in (("lora", true + noise), ("base", 0)):
                value += strict + 3
                ratings.append({"unit": str(unit), "rater": rater, "arm": arm, "question": "overall", "value": value})
    found = power.measured(ratings, "overall", "lora", "base")
    assert found.scenarios == pytest.approx(0.64, abs=0.1) and found.raters == pytest.approx(0.36, abs=0.05)
    assert "400 scenarios" in power.table(found)[0][-1]
    assert power.measured(ratings[:50], "overall", "lora", "base") == power.ASSUMED
    assert power.measured(ratings, "emotion", "lora", "base") == power.ASSUMED


# --- the page


def lines(t: Transcript) -> list[tuple[str, str]]:
    both = zip(t.user_turns, t.replies, strict=True)
    return [line for turn, reply in both for line in (("user", turn), ("her", reply.text))]


def test_nothing_in_the_page_tells_the_arm(page, samples, transcripts):
    source = page.read_text(encoding="utf-8")
    assert not any(arm in source for arm in ARMS) and "scene-" not in source
    guesses = {
        sha256_json([*more, t.arm, t.unit, said, *seed])[:12]
        for t in transcripts
        for said in ([r.text for r in t.replies], lines(t))
        for more in ([], [""])
        for seed in ([], [0], [42])
    }
    assert not guesses & {s.id for s in samples}, "an id cannot be computed without the database's secret"


def test_another_database_has_other_ids_and_another_order(transcripts, samples, tmp_path):
    others = [questionnaire.blind(transcripts, tmp_path / f"{n}.sqlite", seed=0) for n in range(5)]
    assert not {s.id for s in samples} & {s.id for other in others for s in other}
    assert len({tuple(s.dialogue[0][1] for s in other) for other in others}) > 1


def test_the_page_loads_nothing_and_words_cannot_break_out_of_it(page, samples):
    source = page.read_text(encoding="utf-8")
    assert not re.search(r"https?://|\bsrc=|\bhref=|@import|url\(|fetch\(|XMLHttpRequest|WebSocket", source)
    assert "default-src 'none'" in source
    data = re.search(r'<script type="application/json" id="study">(.*?)</script>', source, re.S).group(1)
    study = json.loads(data)
    assert {s["id"]: [tuple(line) for line in s["dialogue"]] for s in study["samples"]} == {
        s.id: list(s.dialogue) for s in samples
    }
    assert dict(study["questions"]) == QUESTIONS


# --- its file of answers


def answered(samples, value=4, at="2026-11-29T12:00:00.000Z", rater="みお-1f2e3d", **changed):
    given = [{"sample": s.id, "question": q, "value": value, "at": at} for s in samples for q in QUESTIONS]
    return {"format": ratings_page.FORMAT, "rater": rater, "answers": given} | changed


def saved(tmp_path, document, name="answers.json") -> Path:
    file = tmp_path / name
    file.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return file


def test_a_file_of_answers_is_taken_once_and_later_answers_replace_earlier_ones(samples, db, tmp_path):
    for _ in range(2):
        assert ratings_page.read_answers(saved(tmp_path, answered(samples)), db) == 30
    assert ratings_page.read_answers(saved(tmp_path, answered(samples, rater="れん-aabbcc")), db) == 30
    ratings_page.read_answers(saved(tmp_path, answered(samples[:1], 2, "2026-11-29T12:30:00+00:00")), db)
    ratings_page.read_answers(saved(tmp_path, answered(samples, 1, "2026-11-29T20:59:00+09:00")), db)
    ratings = questionnaire.load_ratings(db, samples)
    assert len(ratings) == 60 and {r["arm"] for r in ratings} == set(ARMS)
    mine = {(r["sample"], r["value"]) for r in ratings if r["rater"].startswith("みお")}
    assert mine == {(samples[0].id, 2), *((s.id, 4) for s in samples[1:])}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("{", "is not what the ratings page saves: the document is not JSON"),
        ("[]", "is not what the ratings page saves"),
        ("[" * 100_000, "nested too deeply"),
        ({"format": "x"}, "format: Input should be 'companion-ratings-1'"),
        ({"rater": ""}, "rater: String should have at least 1"),
        ({"value": 6}, "answers.0.value"),
        ({"value": "4"}, "answers.0.value"),
        ({"value": True}, "answers.0.value"),
        ({"at": "2026-11-29T12:00:00"}, "answers.0.at: Input should have timezone info"),
        ({"question": "beauty"}, "answers.0.question"),
        ({"arm": "lora"}, "Extra inputs are not permitted"),
        ({"sample": "0" * 12}, "belongs to another questionnaire: 1 of its 30 answers"),
    ],
)
def test_a_wrong_or_foreign_file_is_one_sentence_and_changes_nothing(samples, db, tmp_path, change, reason):
    document = answered(samples)
    if isinstance(change, str):
        document = change
    elif set(change) <= set(document):
        document |= change
    else:
        document["answers"][0] |= change
    with pytest.raises(ValueError, match=r"^answers\.json .*" + re.escape(reason)) as caught:
        ratings_page.read_answers(saved(tmp_path, document), db)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert questionnaire.load_ratings(db, samples) == []


def test_no_file_is_one_sentence(tmp_path, db):
    with pytest.raises(FileNotFoundError, match="There is no file none.json of answers"):
        ratings_page.read_answers(tmp_path / "none.json", db)


# --- in a browser


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (requirements/dev.txt)")
    if (program := shutil.which("chromium") or shutil.which("google-chrome")) is None:
        pytest.skip("there is no browser here (apt-get install chromium)")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--no-first-run", *quiet]
        )
        yield started
        started.close()


@pytest.fixture
def tab(browser, page):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    tab = context.new_page()
    tab.faults, tab.asked = [], []
    tab.on("pageerror", lambda error: tab.faults.append(str(error)))
    tab.on("console", lambda message: tab.faults.append(message.text) if message.type == "error" else None)
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto(page.as_uri())
    yield tab
    assert tab.faults == [] and {url for url in tab.asked if not url.startswith("blob:")} == {page.as_uri()}
    context.close()


def begin(tab, name="みお"):
    tab.fill("#name", name)
    tab.keyboard.press("Enter")


def press(tab, keys):
    for key in keys:
        tab.keyboard.press(key)


def export(tab, file, button="#end .export"):
    with tab.expect_download() as download:
        tab.click(button)
    download.value.save_as(file)
    return download.value.suggested_filename


def test_the_whole_way_by_keyboard(tab, samples, db, tmp_path):
    begin(tab)
    shown = []
    for _ in samples:
        shown.append(tab.inner_text("#talk"))
        press(tab, [*"54321", "Enter"])
    assert tab.inner_text("#done") == "すべて終わりました"
    assert len(shown) == 6 and all("</script>" in talk for talk in shown)
    assert re.fullmatch(r"ratings-みお-[0-9a-f]{6}\.json", export(tab, tmp_path / "a.json"))
    assert ratings_page.read_answers(tmp_path / "a.json", db) == 30
    found = {(r["question"], r["value"]) for r in questionnaire.load_ratings(db, samples)}
    assert found == set(zip(QUESTIONS, (5, 4, 3, 2, 1), strict=True))


def test_answers_are_saved_at_once_and_a_rater_goes_on_where_he_stopped(tab, samples, db, tmp_path):
    begin(tab)
    press(tab, [*"11111", "Enter", *"25"])
    talk = tab.inner_text("#talk")
    tab.reload()
    tab.click("#known button")
    assert tab.inner_text("#place") == "2 / 6" and tab.inner_text("#talk") == talk
    assert tab.eval_on_selector_all("input:checked", "found => found.map(i => i.value)") == ["2", "5"]
    press(tab, ["3"])  # the first open question is the third
    tab.click("#q-character label:nth-child(4)")
    assert tab.eval_on_selector_all("input:checked", "found => found.map(i => i.value)") == ["4", "5", "3"]
    export(tab, tmp_path / "half.json", "header .export")
    assert ratings_page.read_answers(tmp_path / "half.json", db) == 8


def test_several_people_share_a_browser_each_in_his_own_order(tab, samples, db, tmp_path):
    orders = []
    for name in ("みお", "れん", "あき"):
        begin(tab, name)
        order = []
        for _ in range(6):
            order.append(tab.inner_text("#talk"))
            press(tab, [*"33333", "Enter"])
        orders.append(tuple(order))
        export(tab, tmp_path / f"{name}.json")
        ratings_page.read_answers(tmp_path / f"{name}.json", db)
        tab.click("#other")
    assert tab.locator("#known button").count() == 3 and len(set(orders)) > 1
    assert len({r["rater"] for r in questionnaire.load_ratings(db, samples)}) == 3


def test_back_forth_and_what_is_left_open(tab):
    begin(tab)
    press(tab, ["Enter", "Enter", "Shift+Enter"])
    assert tab.inner_text("#place") == "2 / 6"
    press(tab, [*"44444", "Shift+Enter"])
    assert tab.inner_text("#place") == "1 / 6", "from the button too"
    press(tab, ["Enter"] * 6)
    assert tab.inner_text("#done") == "あと5件あります"
    tab.click("#again")
    assert tab.inner_text("#place") == "1 / 6"


def test_a_browser_that_keeps_nothing_says_so_and_loses_nothing(tab, db, tmp_path):
    begin(tab)
    press(tab, "12")
    tab.evaluate("() => { Storage.prototype.setItem = () => { throw new DOMException('full') } }")
    press(tab, [*"345", "Enter"])
    assert tab.is_visible("#unsaved")
    export(tab, tmp_path / "a.json", "header .export")
    assert ratings_page.read_answers(tmp_path / "a.json", db) == 5


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(tab, width):
    tab.set_viewport_size({"width": width, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    begin(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
