"""What workers have written, each for its partitions, as one: records by input row."""

from __future__ import annotations

import numpy as np

from hftlab.kernels.book.touch import TOUCH_ROW
from hftlab.tape.tape import Tape


def fills_in_input_order(tape: Tape, written: list[np.ndarray]) -> np.ndarray:
    """Fills that workers have written, by input row; those of a single one are changed where they are."""
    fills = written[0] if len(written) == 1 else np.concatenate(written)
    if not tape.commands.order.size:
        return fills
    own = fills["row"] < 0  # of orders of the gate
    rows = tape.input_rows(np.where(own, -1 - fills["row"], fills["row"]) if own.any() else fills["row"])
    fills["row"] = np.where(own, -1 - rows, rows) if own.any() else rows
    return fills.take(row_order(rows))  # an index in brackets takes eight times as long


def touch_in_input_order(tape: Tape, written: list[np.ndarray]) -> np.ndarray:
    """Changes of the touch that workers have written, by input row, as `fills_in_input_order`."""
    touches = written[0] if len(written) == 1 else np.concatenate(written)
    if not tape.commands.order.size:
        return touches
    touches[:, TOUCH_ROW] = tape.input_rows(touches[:, TOUCH_ROW])
    return touches.take(row_order(touches[:, TOUCH_ROW]), axis=0)


def row_order(rows: np.ndarray) -> np.ndarray:
    """The stable order that sorts records by input row; partitions are sorted, so they are only merged."""
    return np.argsort(rows, kind="stable")
