"""How close the two are: points and one of six levels, which follow from what happened between them and from nothing
else.

In: the events of a talk, in order. Out: `Relationship`, computed anew from all of them, so that it can be explained.

Points go from 0 to 100. What a kind of event is worth halves each time it happens again on the same day, what a day
brings is bounded, and compliments count as much as the talk around them at most: alone they bring nothing. The level
rises by one step when the points reach its threshold, falls by one when they are `SLACK` below it, and rests after each
step for a day or `REST_TURNS` exchanges. She becomes more than a friend only with somebody who said on several days
that they like her. Staying away costs nothing, and a day of talk brings hardly more than an hour.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import reduce
from itertools import accumulate

from helpers.bot.store import Event
from helpers.persona import LEVELS, Level, PersonaCard

MAX_POINTS = 100.0
THRESHOLDS: dict[Level, float] = dict(zip(LEVELS, (0, 5, 15, 30, 50, 75), strict=True))
SLACK = 4.0  # points below its threshold at which a level is lost
REST, REST_TURNS = timedelta(days=1), 40  # between two steps: a day, or so many exchanges
LIKED_DAYS: dict[Level, int] = {"crush": 3, "lover": 7}  # days on which the user said that they like her
DAY_GAIN, DAY_LOSS = 4.0, 8.0  # the most that one day brings or costs

# What the first event of its kind on a day is worth.
WORTH = {
    "talk": 0.4,
    "told": 0.6,
    "opened_up": 1.0,
    "thanks": 0.5,
    "liking": 1.0,
    "repeated": 0.0,
    "distance": -4.0,
    "insult": -3.0,
}
_SAID = {
    "talk": "話してくれた",
    "told": "くわしく話してくれた",
    "opened_up": "自分のことを打ち明けてくれた",
    "thanks": "お礼を言ってくれた",
    "liking": "好意を伝えてくれた",
    "repeated": "同じ言葉のくり返し",
    "distance": "距離を置きたいと言われた",
    "insult": "きつい言葉を言われた",
}


@dataclass(frozen=True)
class Change:
    """What one event did: `points` gained or lost, and the level after it, if it was a step."""

    event: Event
    points: float
    step: Level | None = None


@dataclass(frozen=True)
class Relationship:
    """Where the two are.

    Attributes:
        stepped: when the level last changed, and `turns` how many exchanges ago.
        liked: the days on which the user said that they like her.
        today: how often each kind of event happened on `day`; `gained` and `lost` are what that day brought and cost,
            `praised` what of it compliments brought.
        last: what the last event did.
    """

    points: float = 0.0
    level: Level = LEVELS[0]
    stepped: datetime | None = None
    turns: int = 0
    liked: frozenset[date] = frozenset()
    day: date | None = None
    today: Counter = field(default_factory=Counter)
    gained: float = 0.0
    praised: float = 0.0
    lost: float = 0.0
    last: Change | None = None


def relationship(events: Iterable[Event]) -> Relationship:
    """Where the two are after `events`."""
    return reduce(after, events, Relationship())


def after(before: Relationship, event: Event) -> Relationship:
    """Where the two are after one event more."""
    day = event.at.date()
    same = before.day == day
    today = before.today if same else Counter()
    gained, praised, lost = (before.gained, before.praised, before.lost) if same else (0.0, 0.0, 0.0)
    worth = WORTH[event.kind] * 0.5 ** today[event.kind]
    points = min(worth, DAY_GAIN - gained) if worth > 0 else max(worth, lost - DAY_LOSS)
    if liking := event.kind == "liking":
        points = max(min(points, gained - 2 * praised), 0.0)  # what all else brought, less what compliments did
    now = replace(
        before,
        points=min(max(before.points + points, 0.0), MAX_POINTS),
        turns=before.turns + 1,
        liked=before.liked | {day} if liking else before.liked,
        day=day,
        today=today + Counter([event.kind]),
        gained=gained + max(points, 0.0),
        praised=praised + points * liking,
        lost=lost - min(points, 0.0),
    )
    step = _step(now, event.at)
    if step is None:
        return replace(now, last=Change(event, now.points - before.points))
    return replace(now, level=step, stepped=event.at, turns=0, last=Change(event, now.points - before.points, step))


def _step(now: Relationship, at: datetime) -> Level | None:
    """The level that this state steps to; None if it stays."""
    if now.stepped is not None and at - now.stepped < REST and now.turns < REST_TURNS:
        return None
    place = LEVELS.index(now.level)
    if place and now.points < THRESHOLDS[now.level] - SLACK:
        return LEVELS[place - 1]
    if place + 1 < len(LEVELS) and not missing(now):
        return LEVELS[place + 1]
    return None


def missing(now: Relationship) -> list[str]:
    """What the next level lacks, in Japanese; nothing if it is reached, or if there is none."""
    place = LEVELS.index(now.level) + 1
    if place == len(LEVELS):
        return []
    level, lacks = LEVELS[place], []
    if now.points < THRESHOLDS[level]:
        lacks.append(f"あと{THRESHOLDS[level] - now.points:.1f}点")
    if len(now.liked) < LIKED_DAYS.get(level, 0):
        lacks.append(f"好意を伝えてくれた日があと{LIKED_DAYS[level] - len(now.liked)}日")
    return lacks


def course(events: Iterable[Event]) -> list[Relationship]:
    """Where the two were at first and after each event."""
    return list(accumulate(events, after, initial=Relationship()))


def explain(events: Iterable[Event], card: PersonaCard, pinned: Level | None) -> list[str]:
    """Why the two are where they are, in lines of Japanese: what `/why` shows."""
    states = course(events)
    now = states[-1]
    lines = [f"いまの関係は「{card.levels[now.level].label}」、{now.points:.1f}点（{MAX_POINTS:.0f}点まで）です。"]
    if pinned is not None:
        lines.insert(0, f"関係は「{card.levels[pinned].label}」に固定されています。固定を外すと、次のとおりです。")
    if lacks := missing(now):
        following = card.levels[LEVELS[LEVELS.index(now.level) + 1]].label
        lines.append(f"次の「{following}」まで、{'、'.join(lacks)}。")
    elif now.level != LEVELS[-1]:
        lines.append(f"次へ進むのは、前に変わってから1日たつか{REST_TURNS}回話してからです。")
    for change in [state.last for state in states[1:][-8:]]:
        step = f"、関係が「{card.levels[change.step].label}」に" if change.step else ""
        at, said = change.event.at, _SAID[change.event.kind]
        lines.append(f"・{at.month}月{at.day}日 {at:%H:%M} {said}（{change.points:+.1f}点{step}）")
    lines.append("同じことは1日のうちでくり返すほど点が小さくなります。会わない日があっても点は減りません。")
    return lines
