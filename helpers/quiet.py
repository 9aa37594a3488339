"""Keeps out of a process what a library does and says although the course does not use it there."""

import sys


def hide_gptqmodel() -> None:
    """Have peft take gptqmodel for not installed, in this process.

    Where it is installed, peft imports it for every adapter, with its banner, its log and its patches of transformers.
    Only the worker processes of `export.quantize` need it.
    """
    sys.modules.setdefault("gptqmodel", None)
