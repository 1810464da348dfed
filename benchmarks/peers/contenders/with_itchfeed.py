"""itchfeed without its C++ backend (which is itchcpp): messages as objects. It has no books."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

os.environ["ITCH_NO_CPP"] = "1"

from itch.parser import MessageParser
from objects import references
from serve import Task, serve


def decode(path: str) -> int:
    with Path(path).open("rb") as file:
        return sum(1 for _ in MessageParser().parse_file(file))


def decode_form(_: int, path: str) -> dict[str, np.ndarray]:
    with Path(path).open("rb") as file:
        names = "order_reference_number", "order_reference_number", "new_order_reference_number"
        return references(MessageParser().parse_file(file), *names)


if __name__ == "__main__":
    serve("itchfeed", {"decode": Task(decode, decode_form)})
