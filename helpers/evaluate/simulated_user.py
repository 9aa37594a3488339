"""The user's side played by a model: what the script says, in words that answer hers.

In: a `reply` function over any OpenAI-compatible endpoint, a scenario, a talk so far. Out: the user's next line. Where
a metric reads the reply (first and last turn, a question of fact, an asked length) the script stands as it is, in the
whole talk where what counts is said on the way (a corrected memory, an age, a danger), and also where the model gives
no usable line.
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
    """`reply` answers a chat (`ChatClient.reply`); `model` names who does, for the log. `temperature` and
    `max_tokens` are for one line. Each arm hears lines that answer its own, so arms differ in what they were told."""

    reply: Callable[..., Reply]
    model: str
    temperature: float = 0.7
    max_tokens: int = 120

    def line(
        self, scenario: Scenario, said: Sequence[str], replies: Sequence[str], card: PersonaCard, seed: int
    ) -> str | None:
        """The user's next line; None where the model gave none that can be used.

        Args:
            said: the user's turns so far, with the script's next one at the end.
            replies: hers so far.
        """
        chat = self._chat(scenario, said, replies, card)
        answer = self.reply(chat, max_tokens=self.max_tokens, temperature=self.temperature, seed=seed)
        return _usable(answer.text, script=said[-1], her=replies[-1])

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
