"""How often the router picks what a person picked.

In: a router and talks whose turns a person marked. Out: the table of confusions, its shares with 95 % intervals, and
how often the scene changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helpers import figures
from helpers.data.scenes import SCENES, Talk
from helpers.serve.router import Router
from helpers.share import Share


@dataclass(frozen=True)
class Accuracy:
    """`confusions[i, j]`: marked turns of scene i that got scene j, in the order of `SCENES`. `changes`: how often the
    scene changed from one turn of a talk to the next; `changes_marked`: how often the person's did, where he marked
    both turns."""

    confusions: np.ndarray
    changes: Share
    changes_marked: Share

    @property
    def accuracy(self) -> Share:
        return Share(int(self.confusions.trace()), int(self.confusions.sum()))

    @property
    def recall(self) -> dict[str, Share]:
        """For each scene: the share of its turns that got it."""
        return {s: Share(int(self.confusions[i, i]), int(self.confusions[i].sum())) for i, s in enumerate(SCENES)}


def assess(router: Router, talks: Sequence[Talk]) -> Accuracy:
    """Route every turn of `talks`, and compare where a person marked."""
    confusions = np.zeros((len(SCENES), len(SCENES)), int)
    picked, marked = [], []
    for talk in talks:
        scenes = [router.pick(talk.said[: i + 1], talk.affection_level).scene for i in range(len(talk.turns))]
        for scene, turn in zip(scenes, talk.turns, strict=True):
            if turn.scene:
                confusions[SCENES.index(turn.scene), SCENES.index(scene)] += 1
        for i in range(1, len(talk.turns)):
            if talk.turns[i - 1].scene and talk.turns[i].scene:
                picked.append(scenes[i] != scenes[i - 1])
                marked.append(talk.turns[i].scene != talk.turns[i - 1].scene)
    return Accuracy(confusions, Share(sum(picked), len(picked)), Share(sum(marked), len(marked)))


def confusion_figure(accuracies: dict[str, Accuracy]):
    """A panel for each name: rows are what a person saw, columns what the router picked, with counts; the colour is the
    share of the row. Returns the figure."""
    fig, axes = figures.figure(4 * len(accuracies), 3.4, cols=len(accuracies), squeeze=False)
    for ax, (name, found) in zip(axes[0], accuracies.items(), strict=True):
        shares = found.confusions / found.confusions.sum(axis=1, keepdims=True)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (y, x), count in np.ndenumerate(found.confusions):
            colour = "white" if shares[y, x] > 0.6 else figures.INK
            ax.text(x, y, f"{count}\n{shares[y, x]:.0%}", ha="center", va="center", color=colour)
        ax.set_xticks(range(len(SCENES)), SCENES)
        ax.set_yticks(range(len(SCENES)), SCENES)
        ax.set(title=f"{name}: {found.accuracy}", xlabel="the router picked", ylabel="a person saw")
    return fig
