"""Requests as JSON: plain values, `qdrant_client.models`, numpy arrays."""

from __future__ import annotations

import datetime
import enum
import json
import math
import uuid
from collections.abc import Mapping
from typing import Any

from .errors import InvalidInput


def dumps(body: Any) -> str:
    """JSON text of a request. Arrays become lists in one call each, not one a number."""
    try:
        return json.dumps(body, default=_plain, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError) as error:
        field, message = _culprit(body, "") or ("", str(error))
        raise InvalidInput(field, message) from None


def plain(value: Any) -> Any:
    """One step towards JSON, for values that JSON does not have; others stay."""
    try:
        return _plain(value)
    except TypeError:
        return value


def _plain(value: Any) -> Any:
    # What `qdrant_client.models` are made of. What was not set is left out, so that it is the
    # server's default and not the client's; what was set to None is not.
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(exclude_unset=True, by_alias=True)
    # numpy arrays and scalars, array.array.
    to_list = getattr(value, "tolist", None)
    if to_list is not None:
        return to_list()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _culprit(value: Any, path: str, depth: int = 0) -> tuple[str, str] | None:
    """Where in a request the value is that JSON does not have."""
    if depth > 200:
        return path, "nested too deep"
    if isinstance(value, float):
        return None if math.isfinite(value) else (path, f"{value} is not finite")
    if value is None or isinstance(value, (str, int)):
        return None
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, (str, int, float, bool)) and key is not None:
                return path, f"a key is {type(key).__name__}; expected text"
            found = _culprit(item, f"{path}.{key}" if path else str(key), depth + 1)
            if found:
                return found
        return None
    if isinstance(value, (list, tuple)):
        for at, item in enumerate(value):
            found = _culprit(item, f"{path}[{at}]", depth + 1)
            if found:
                return found
        return None
    try:
        return _culprit(_plain(value), path, depth + 1)
    except TypeError as error:
        return path, str(error)
