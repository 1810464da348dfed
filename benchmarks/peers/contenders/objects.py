"""Messages as objects of itchfeed's classes (which itchcpp's are too), one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from serve import references_of

ORDERS = b"AFECXDU"


def references(messages: Iterable[Any], replaced: str, reference: str, new: str) -> dict[str, np.ndarray]:
    """Form `references`, by the names of the attributes."""
    found = []
    for number, message in enumerate(messages):
        kind = getattr(message, "message_type", None) or message.type
        if kind == b"U":
            found += [(number, getattr(message, replaced)), (number, getattr(message, new))]
        elif kind in ORDERS:
            found.append((number, getattr(message, reference)))
    table = np.array(found, np.int64).reshape(-1, 2).T
    return references_of(*table)
