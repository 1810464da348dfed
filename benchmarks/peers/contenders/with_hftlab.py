"""hftlab: a file to a table of every best bid and offer, to books, to facts; orders call by call, levels."""

from __future__ import annotations

import hftlab_paths
import numpy as np
import pyarrow as pa
from serve import BBO, Task, bbo_changes, best_of, levels_of, references_of, serve

import hftlab
from hftlab.codes import MBO_FLAG_LAST, MboAction

UNITS = 100_000  # of hftlab's prices in 1e-4


def column(table: pa.Table, name: str) -> np.ndarray:
    """A column as integers, 0 where there is nothing."""
    values = table.column(name).combine_chunks()
    values = values.indices if pa.types.is_dictionary(values.type) else values
    values = values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values
    return (values.fill_null(0) if values.null_count else values).to_numpy()


def locates(table: pa.Table) -> np.ndarray:
    """Stock locates: the files name instrument i SYM00i, and give it the locate i + 1."""
    names = table.column("symbol").combine_chunks()
    numbers = np.array([int(name.removeprefix("SYM")) + 1 for name in names.dictionary.to_pylist()])
    return numbers[names.indices.to_numpy()]


def bbo(path: str) -> pa.Table:
    return hftlab.replay(hftlab.open_flow(path), mode="rebuild", record=("l1",)).to_arrow("l1")


def bbo_form(l1: pa.Table, path: str) -> dict[str, np.ndarray]:
    message = column(hftlab.open_flow(path).table(), "sequence")[column(l1, "seq")]
    values = (column(l1, name) // (UNITS if name.endswith("px") else 1) for name in BBO)
    return bbo_changes(message, locates(l1), *values)


def books(path: str) -> hftlab.Result:
    return hftlab.replay(hftlab.open_flow(path), mode="rebuild", record=())


def books_form(run: hftlab.Result, _: str) -> dict[str, np.ndarray]:
    book = run.to_arrow("book")
    sums: dict[tuple[int, int, int], int] = {}
    cells = (locates(book), column(book, "side"), column(book, "price") // UNITS, column(book, "qty"))
    for locate, side, px, sz in zip(*(cell.tolist() for cell in cells), strict=True):
        sums[locate, side, px] = sums.get((locate, side, px), 0) + sz
    best: dict[int, list[int]] = {}
    for (locate, side, px), sz in sorted(sums.items(), key=lambda level: level[0][1] * level[0][2]):
        best.setdefault(locate, [0, 0, 0, 0])[slice(0, 2) if side > 0 else slice(2, 4)] = px, sz
    return best_of([(locate, *row) for locate, row in best.items()]) | levels_of(
        [(*place, sz) for place, sz in sums.items()]
    )


def decode(path: str) -> pa.Table:
    return hftlab.open_flow(path).table()


def decode_form(table: pa.Table, _: str) -> dict[str, np.ndarray]:
    about = np.isin(column(table, "action"), (int(MboAction.A), int(MboAction.C)))
    return references_of(column(table, "sequence")[about], column(table, "order_id").view(np.int64)[about])


def lines_form(table: pa.Table, _: str) -> dict[str, np.ndarray]:
    whole = column(table, "flags") & MBO_FLAG_LAST != 0
    ts = column(table, "ts_event")
    columns = {
        "ts": ts - ts[0],
        "order_id": column(table, "order_id").view(np.int64),
        "side": column(table, "side"),
        "px": column(table, "price") // UNITS,
        "size": column(table, "size"),
    }
    return {f"lines_{name}": values[whole].astype(np.int64) for name, values in columns.items()}


if __name__ == "__main__":
    serve(
        "hftlab",
        {
            "bbo": Task(bbo, bbo_form),
            "books": Task(books, books_form),
            "decode": Task(decode, decode_form),
            "lobster": Task(decode, lines_form),
        }
        | hftlab_paths.TASKS,
    )
