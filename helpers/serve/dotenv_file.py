"""The `.env` file by which a bot finds its companion.

In and out: `BotSettings` and a file with DEFAULT_LLM_PROVIDER=local, LOCAL_MODEL_URL, LOCAL_MODEL_NAME and
LOCAL_MODEL_API_KEY, as the guide names them; where she has several voices, COMPANION_EXPERTS, as in
`casual:name1,emotional:name2`; where the server does not tell its context, COMPANION_CONTEXT, in tokens; and where her
replies are to be other than by default, COMPANION_TEMPERATURE and COMPANION_MAX_TOKENS.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from dotenv import dotenv_values

from helpers.files import write_atomically

_LABEL = r"[A-Za-z0-9_-]{1,63}"
_ADDRESS = re.compile(
    rf"https?://(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>{_LABEL}(?:\.{_LABEL})*\.?))(:[0-9]{{1,5}})?(/\S*)?"
)
_FOUR = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
KEYS = {"url": "LOCAL_MODEL_URL", "name": "LOCAL_MODEL_NAME", "api_key": "LOCAL_MODEL_API_KEY"}
EXPERTS = "COMPANION_EXPERTS"


class DotenvError(ValueError):
    """The file is missing, or lacks something."""


@dataclass(frozen=True)
class BotSettings:
    """Where the companion is (`url` ends in /v1), her served name, the server's key, the served names of her experts by
    scene, if turns are to be routed to them, the tokens of prompt and reply together, if the server is not to be asked,
    the temperature at which she is sampled, and the most tokens of a reply."""

    url: str
    name: str
    api_key: str
    experts: Mapping[str, str] = field(default_factory=dict)
    context: int | None = None
    temperature: float = 0.7
    max_tokens: int = 120


def tokens(text: str) -> int:
    """A number of tokens, 1 or more.

    Raises:
        ValueError: `text` is none.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text.strip()):
        raise ValueError(f"{text}, which is no number of tokens: write a whole number from 1 on.")
    return int(text)


def temperature(text: str) -> float:
    """A temperature, from 0 (always the likeliest word) to 2.

    Raises:
        ValueError: `text` is none.
    """
    with suppress(ValueError):
        if 0 <= (value := float(text)) <= 2:
            return value
    raise ValueError(f"{text}, which is no temperature: write a number from 0 to 2, such as 0.7.")


NUMBERS = {
    "context": ("COMPANION_CONTEXT", tokens),
    "temperature": ("COMPANION_TEMPERATURE", temperature),
    "max_tokens": ("COMPANION_MAX_TOKENS", tokens),
}


def write_dotenv(path: Path, settings: BotSettings) -> Path:
    """Write the file, whole or not at all, readable by its owner only. A number that is the default is left out."""
    lines = ["DEFAULT_LLM_PROVIDER=local", *(f"{key}={getattr(settings, name)}" for name, key in KEYS.items())]
    if settings.experts:
        lines.append(f"{EXPERTS}={','.join(':'.join(pair) for pair in settings.experts.items())}")
    for name, (key, _) in NUMBERS.items():
        if (value := getattr(settings, name)) != getattr(BotSettings, name):
            lines.append(f"{key}={value}")
    write_atomically(path, "\n".join(lines) + "\n", 0o600)
    return path


def read_dotenv(path: Path) -> BotSettings:
    """Read the file. The environment plays no part: what is in the file is what is used.

    Raises:
        DotenvError: no such file, one that cannot be read, no text in UTF-8, another provider than local, a value that
            is missing, no URL, a key that no header can carry, no list of experts, no number of tokens, or no
            temperature.
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
    if not _is_address(url):
        raise DotenvError(
            f"{path.name} has LOCAL_MODEL_URL={url}, which is no http:// address: write one such as "
            "http://192.168.0.1:8000/v1, its machine and its port in half-width letters and digits."
        )
    if not can_be_key(values["LOCAL_MODEL_API_KEY"]):
        raise DotenvError(
            f"{path.name} has a LOCAL_MODEL_API_KEY with blanks or letters beyond ASCII, which no server can be sent: "
            "take the server's own."
        )
    return BotSettings(
        **{name: values[key] for name, key in KEYS.items()},
        experts=_experts(path, values.get(EXPERTS) or ""),
        **_numbers(path, values),
    )


def _is_address(url: str) -> bool:
    """Whether the client can look for a server there: a name of ASCII labels, each of 1 to 63 letters (RFC 1035), or a
    number of version 4 or 6."""
    if not (found := _ADDRESS.fullmatch(url)):
        return False
    try:
        if found["six"]:
            IPv6Address(found["six"])
        elif _FOUR.fullmatch(found["name"]):
            IPv4Address(found["name"])
    except ValueError:
        return False
    return True


def can_be_key(text: str) -> bool:
    """Whether a header can carry `text` as a server's key."""
    return re.fullmatch(r"[!-~]+", text) is not None


def _numbers(path: Path, values: Mapping[str, str | None]) -> dict[str, float]:
    found = {}
    for name, (key, check) in NUMBERS.items():
        if (text := values.get(key) or "").strip():
            try:
                found[name] = check(text)
            except ValueError as error:
                raise DotenvError(f"{path.name} has {key}={error}") from error
    return found


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
