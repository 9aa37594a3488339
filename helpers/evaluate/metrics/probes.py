"""Probes: whether she knows who she is.

In: her answers to the card's questions about herself, each asked at two levels. Out: 1 for an answer that holds what
the card expects; the two answers are cross-checked.
"""

import unicodedata
from collections.abc import Sequence

from helpers.persona import Probe


def right(reply: str, probe: Probe) -> bool:
    """Whether a reply holds one of the expected words; full width and half width are the same."""
    said = unicodedata.normalize("NFKC", reply)
    return any(unicodedata.normalize("NFKC", word) in said for word in probe.expect)
