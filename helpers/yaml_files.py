"""A YAML file read through a schema.

In: a file and a pydantic model. Out: the model's instance, or one sentence that names the file and each field in error.
"""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

_Schema = TypeVar("_Schema", bound=BaseModel)


def read_yaml(file: Path, schema: type[_Schema], what: str) -> _Schema:
    """What `file` holds, as `schema`; `what` is the file's kind, for the message.

    Raises:
        ValueError: it is no YAML, no UTF-8, or breaks the schema.
    """
    try:
        return schema.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise ValueError(f"The {what} {file.name} cannot be used: {_fields(error)}") from error


def _fields(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return " ".join(str(error).split())
