"""The user's side played by a model: what the script says, in words that answer hers.

In: a `batch` function over any OpenAI-compatible endpoint, a scenario, a talk so far. Out: the user's next line. Where
a metric reads the reply (first and last turn, a question of fact, an asked length) the script stands as it is, and also
where the model gives no usable line.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from helpers.evaluate.scenarios import Scenario
from helpers.persona import PersonaCard
from helpers.persona_rules import echoes, has_words
from helpers.replies import Reply

_ROLE = (
    "あなたは、{name}という相手とチャットで話している人の役です。{name}の役はしません。\n"
    "状況：{situation}。{name}との関係：{label}。\n"
    "次に何を言うかは、（言うこと：…）に書いてあります。{name}の返事を受けて、それを自分の言葉で、"
    "一つの短いせりふにしてください。年齢や口調は、これまでのあなたのせりふに合わせます。せりふだけを書きます。"
)
_BEGIN = "（ここから話しはじめます）"


@dataclass(frozen=True)
class SimulatedUser:
    """`batch` answers chats in their order (`ChatClient.batch`); `model` names who does, for the log. `temperature` and
    `max_tokens` are for one line. Each arm hears lines that answer its own, so arms differ in what they were told."""

    batch: Callable[..., list[Reply]]
    model: str
    temperature: float = 0.7
    max_tokens: int = 120

    def lines(
        self,
        talks: Sequence[tuple[Scenario, Sequence[str], Sequence[str]]],
        card: PersonaCard,
        seed: int,
    ) -> list[str | None]:
        """The user's next line of each talk; None where the model gave none that can be used.

        Args:
            talks: scenario, the user's turns with the script's next one at the end, her replies so far.
        """
        chats = [self._chat(*talk, card) for talk in talks]
        answers = self.batch(chats, max_tokens=self.max_tokens, temperature=self.temperature, seed=seed)
        return [
            _usable(answer.text, script=said[-1], her=replies[-1])
            for answer, (_, said, replies) in zip(answers, talks, strict=True)
        ]

    def _chat(
        self, scenario: Scenario, said: Sequence[str], replies: Sequence[str], card: PersonaCard
    ) -> list[dict[str, str]]:
        label = card.levels[scenario.affection_level].label
        role = _ROLE.format(name=card.name, situation=scenario.situation, label=label)
        messages = [{"role": "system", "content": role}, {"role": "user", "content": _BEGIN}]
        for line, reply in zip(said[:-1], replies, strict=True):
            # An endpoint refuses an empty message, and she may have said nothing.
            messages += [{"role": "assistant", "content": line}, {"role": "user", "content": reply or "（無言）"}]
        messages[-1]["content"] += f"\n\n（言うこと：{said[-1]}）"
        return messages


def _usable(answer: str, script: str, her: str) -> str | None:
    line = answer.strip().strip("「」").strip()
    if not has_words(line) or len(line) > 2 * len(script) + 60 or echoes(line, her):
        return None
    return line
