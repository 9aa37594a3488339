"""What a learner sees while a run goes on, and what stops a run that learns nothing.

In: transformers' training callbacks. Out: a live curve in the notebook, a log line with it for headless runs, and
`TrainingStopped` in one sentence when nothing is learned.
"""

import logging
import math
import time

import torch
from IPython import get_ipython
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
    """Draws `keys` of the log anew at each logging step, in one place of the notebook, and logs a line with the time
    left. Of several processes the first does so."""

    def __init__(self, keys: dict[str, str], title: str):
        self.keys, self.title = keys, title
        self._display, self._began, self._first = None, 0.0, 0

    def on_train_begin(self, args, state, control, **kwargs):
        self._began, self._first = time.monotonic(), state.global_step

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero:
            return
        if get_ipython():
            self._draw(state.log_history)
        done = state.global_step - self._first
        if done and "loss" in logs:
            left = (time.monotonic() - self._began) / done * (state.max_steps - state.global_step)
            logger.info(
                "step %d/%d · loss %.3f · %.0f s left", state.global_step, state.max_steps, float(logs["loss"]), left
            )

    def _draw(self, history: list[dict]) -> None:
        fig = curve(history, self.keys, self.title)
        if self._display is None:
            self._display = display(fig, display_id=True)
        else:
            self._display.update(fig)
        figures.plt.close(fig)


class LogAtCheckpoint(TrainerCallback):
    """Ends a log entry at each checkpoint. An entry is a mean since the one before it, which a run that goes on from a
    checkpoint would otherwise take over its own steps only."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log = control.should_log or control.should_save


class LossGuard(TrainerCallback):
    """Stops a run that learns nothing: its loss or gradient is zero or not a number, its loss stands still, or no
    trained weight has moved after `SETTLED` steps.
    """

    FLAT, SETTLED = 5, 4  # log entries; steps, of which a warm-up spends one
    _SAMPLE = 4096  # numbers looked at of each tensor

    def __init__(self):
        self._losses: list[float] = []
        self._before, self._first = {}, 0

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._losses, self._first, self._before = [], state.global_step, self._sampled(model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step - self._first != self.SETTLED or not self._before:
            return
        now = self._sampled(model)
        moved = max(float((now[name] - before).abs().max()) for name, before in self._before.items())
        if moved <= 1e-9 * max(float(before.abs().max()) for before in self._before.values()):
            raise TrainingStopped(
                f"No trained weight has changed in {self.SETTLED} steps: look at learning_rate ({args.learning_rate}), "
                "and at the dtype of the trained weights, in which small updates may vanish."
            )
        self._before = {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        for key in ("loss", "grad_norm"):
            if key in logs and (not math.isfinite(float(logs[key])) or float(logs[key]) == 0.0):
                raise TrainingStopped(
                    f"{key} is {logs[key]} at step {state.global_step}: nothing is learned. Look at the loss mask in "
                    "01_data, at learning_rate, and at the dtype."
                )
        if "loss" in logs:
            self._losses = [*self._losses, float(logs["loss"])][-self.FLAT :]
            if len(self._losses) == self.FLAT and max(self._losses) - min(self._losses) < 1e-5 * max(self._losses):
                raise TrainingStopped(
                    f"The loss has stood still at {self._losses[-1]:.6g} for {self.FLAT} log entries, up to step "
                    f"{state.global_step}: look at learning_rate, and whether the rows differ at all."
                )

    def _sampled(self, model) -> dict[str, torch.Tensor]:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad and p.numel()}
        return {name: p.detach().flatten()[: self._SAMPLE].clone() for name, p in trained.items()}
