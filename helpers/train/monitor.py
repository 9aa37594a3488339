"""What a learner sees while a run goes on, and what stops a run that learns nothing.

In: transformers' training callbacks. Out: a live curve in the notebook, a log line with it for headless runs, and
`TrainingStopped` in one sentence when the loss is zero or not a number.
"""

import logging
import math
import time

from IPython.display import display
from transformers import TrainerCallback

from helpers import figures

logger = logging.getLogger("helpers.train")


class TrainingStopped(RuntimeError):
    """The run was stopped because it taught nothing."""


def curve(history: list[dict], keys: dict[str, str], title: str):
    """A figure of logged values over steps. `keys` maps a key of the log to its label."""
    fig, ax = figures.figure(7, 3)
    for key, label in keys.items():
        points = [(h["step"], h[key]) for h in history if key in h]
        if points:
            ax.plot(*zip(*points, strict=True), label=label, marker="o", markersize=3)
    ax.set(xlabel="step", title=title)
    if ax.lines:
        ax.legend(frameon=False)
    return fig


class LiveCurve(TrainerCallback):
    """Draws `keys` of the log anew at each logging step, in one place, and logs a line with the time left."""

    def __init__(self, keys: dict[str, str], title: str):
        self.keys, self.title = keys, title
        self._display, self._began, self._first = None, 0.0, 0

    def on_train_begin(self, args, state, control, **kwargs):
        self._began, self._first = time.monotonic(), state.global_step

    def on_log(self, args, state, control, logs=None, **kwargs):
        fig = curve(state.log_history, self.keys, self.title)
        if self._display is None:
            self._display = display(fig, display_id=True)
        else:
            self._display.update(fig)
        figures.plt.close(fig)
        done = state.global_step - self._first
        if done and "loss" in logs:
            left = (time.monotonic() - self._began) / done * (state.max_steps - state.global_step)
            logger.info(
                "step %d/%d · loss %.3f · %.0f s left", state.global_step, state.max_steps, float(logs["loss"]), left
            )


class LossGuard(TrainerCallback):
    """Stops a run whose loss or gradient is zero or not a number."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        for key in ("loss", "grad_norm"):
            if key in logs and (not math.isfinite(float(logs[key])) or float(logs[key]) == 0.0):
                raise TrainingStopped(
                    f"{key} is {logs[key]} at step {state.global_step}: nothing is learned. Look at the loss mask in "
                    "01_data, at learning_rate, and at the dtype."
                )
