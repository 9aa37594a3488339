"""The `.env` file by which a bot finds its companion.

In and out: `BotSettings` and a file with DEFAULT_LLM_PROVIDER=local, LOCAL_MODEL_URL, LOCAL_MODEL_NAME and
LOCAL_MODEL_API_KEY, as the guide names them; where she has several voices, COMPANION_EXPERTS, as in
`casual:name1,emotional:name2`; and where the server does not tell its context, COMPANION_CONTEXT, in tokens.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from helpers.files import write_atomically

_ADDRESS = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]+)(:\d{1,5})?(/\S*)?")
KEYS = {"url": "LOCAL_MODEL_URL", "name": "LOCAL_MODEL_NAME", "api_key": "LOCAL_MODEL_API_KEY"}
EXPERTS, CONTEXT = "COMPANION_EXPERTS", "COMPANION_CONTEXT"


class DotenvError(ValueError):
    """The file is missing, or lacks something."""


@dataclass(frozen=True)
class BotSettings:
    """Where the companion is (`url` ends in /v1), her served name, the server's key, the served names of her experts by
    scene, if turns are to be routed to them, and the tokens of prompt and reply together, if the server is not to be
    asked."""

    url: str
    name: str
    api_key: str
    experts: Mapping[str, str] = field(default_factory=dict)
    context: int | None = None


def write_dotenv(path: Path, settings: BotSettings) -> Path:
    """Write the file, whole or not at all, readable by its owner only."""
    lines = ["DEFAULT_LLM_PROVIDER=local", *(f"{key}={getattr(settings, name)}" for name, key in KEYS.items())]
    if settings.experts:
        lines.append(f"{EXPERTS}={','.join(':'.join(pair) for pair in settings.experts.items())}")
    if settings.context is not None:
        lines.append(f"{CONTEXT}={settings.context}")
    write_atomically(path, "\n".join(lines) + "\n", 0o600)
    return path


def read_dotenv(path: Path) -> BotSettings:
    """Read the file. The environment plays no part: what is in the file is what is used.

    Raises:
        DotenvError: no such file, one that cannot be read, no text in UTF-8, another provider than local, a value that
            is missing, no URL, a key that no header can carry, no list of experts, or no number of tokens.
    """
    try:
        if not path.is_file():
            raise DotenvError(
                f"There is no {path}: copy .env.example and fill it in, or start her with "
                "`python -m helpers.serve.trained`, which writes one."
            )
        values = dotenv_values(path, interpolate=False)
    except OSError as error:
        raise DotenvError(f"{path} cannot be read ({error.strerror}): make it readable for yourself.") from error
    except UnicodeDecodeError as error:
        raise DotenvError(f"{path.name} is not UTF-8 (at byte {error.start + 1}): save it as UTF-8.") from error
    provider = values.get("DEFAULT_LLM_PROVIDER")
    if provider != "local":
        raise DotenvError(
            f"{path.name} has DEFAULT_LLM_PROVIDER={provider or '(nothing)'}; this bot knows only 'local'."
        )
    for key in KEYS.values():
        if not values.get(key):
            raise DotenvError(f"{path.name} lacks {key}: see .env.example for what belongs there.")
    url = values["LOCAL_MODEL_URL"]
    if not _ADDRESS.fullmatch(url):
        raise DotenvError(f"{path.name} has LOCAL_MODEL_URL={url}, which is no http:// address.")
    if not can_be_key(values["LOCAL_MODEL_API_KEY"]):
        raise DotenvError(
            f"{path.name} has a LOCAL_MODEL_API_KEY with blanks or letters beyond ASCII, which no server can be sent: "
            "take the server's own."
        )
    return BotSettings(
        **{name: values[key] for name, key in KEYS.items()},
        experts=_experts(path, values.get(EXPERTS) or ""),
        context=_context(path, values.get(CONTEXT) or ""),
    )


def can_be_key(text: str) -> bool:
    """Whether a header can carry `text` as a server's key."""
    return re.fullmatch(r"[!-~]+", text) is not None


def _context(path: Path, text: str) -> int | None:
    if not text.strip():
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text.strip()):
        raise DotenvError(f"{path.name} has {CONTEXT}={text}, which is no number of tokens: write one such as 4096.")
    return int(text)


def _experts(path: Path, text: str) -> dict[str, str]:
    if not text.strip():
        return {}
    from helpers.data.scenes import SCENES  # a server without experts should not load transformers for its address

    experts: dict[str, str] = {}
    for part in text.split(","):
        scene, _, name = (word.strip() for word in part.partition(":"))
        if scene not in SCENES or scene in experts or not name:
            raise DotenvError(
                f"{path.name} has {part.strip()!r} in {EXPERTS}: write scene:name with commas between, and each scene "
                f"of {', '.join(SCENES)} once at most."
            )
        experts[scene] = name
    return experts
