"""A model of emotions from the hub, such as one trained on WRIME, instead of the lexicon.

In: a folder or hub id of a text classifier with WRIME's eight emotions as labels. Out: for a text the emotions that it
shows. Source: Kajiwara et al., WRIME, NAACL 2021.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from helpers.evaluate.scenarios import Call

# Which of the eight emotions answer which call. An apology is an act of speech, for which there is none.
ANSWERS: dict[Call, tuple[str, ...]] = {
    "joy": ("joy", "anticipation"),
    "comfort": ("sadness", "trust", "fear"),
    "anger": ("anger", "disgust"),
    "affection": ("trust", "joy"),
    "calm": ("trust",),
    "surprise": ("surprise",),
    "apology": ("sadness",),
}
_JAPANESE = {
    "喜び": "joy",
    "期待": "anticipation",
    "悲しみ": "sadness",
    "信頼": "trust",
    "恐れ": "fear",
    "怒り": "anger",
    "嫌悪": "disgust",
    "驚き": "surprise",
}
EMOTIONS = frozenset(_JAPANESE.values())
SHOWN = 0.3  # probability from which on an emotion counts as shown


@dataclass(frozen=True)
class EmotionModel:
    """`name` is a folder or a hub id; loaded when it is first asked."""

    name: str

    @cached_property
    def _classify(self):
        from transformers import pipeline

        from helpers.quiet import hide_gptqmodel

        hide_gptqmodel()
        classify = pipeline("text-classification", model=self.name, top_k=None)
        labels = set(classify.model.config.id2label.values())
        if missing := EMOTIONS - {_name(label) for label in labels}:
            raise ValueError(
                f"The emotion model {self.name} has the labels {', '.join(sorted(labels))} and lacks "
                f"{', '.join(sorted(missing))}: take a model with WRIME's eight emotions."
            )
        return classify

    def shown(self, texts: Sequence[str]) -> list[set[str]]:
        """For each text the emotions that it shows.

        Raises:
            ValueError: the model's labels are not WRIME's emotions.
        """
        found = self._classify(list(texts), truncation=True)
        return [{_name(one["label"]) for one in scores if one["score"] >= SHOWN} for scores in found]


def _name(label: str) -> str:
    return _JAPANESE.get(label, label.lower())
