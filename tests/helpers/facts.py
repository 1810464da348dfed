"""Facts as words: `F1 B 60@10 t5 last` is action and order id, side (B or S), size and price, and where it
matters time, symbol (`=X`), `snapshot` and `last` (the end of an event).
"""

from __future__ import annotations

import pyarrow as pa

from hftlab.schema import MBO

SIDES = {"B": 1, "S": -1, "-": 0}


def fact(text):
    """One fact as a row."""
    head, side, amount, *more = text.split()
    size, price = amount.split("@")
    row = {"action": head[0], "order_id": int(head[1:] or 0), "side": SIDES[side], "size": int(size)}
    row |= {"price": int(price), "ts_event": 1, "symbol": "X", "flags": 0}
    for word in more:
        if word.startswith("t"):
            row["ts_event"] = int(word[1:])
        elif word.startswith("="):
            row["symbol"] = word[1:]
        else:
            row["flags"] |= {"snapshot": 32, "last": 128}[word]
    return row


def mbo(*facts):
    """An mbo table in the feeds' schema, `sequence` counted from 100."""
    rows = [fact(text) | {"ts_recv": 0, "sequence": 100 + k} for k, text in enumerate(facts)]

    def column(field):
        values = [row[field.name] for row in rows]
        if pa.types.is_dictionary(field.type):
            return pa.array(values, pa.string()).dictionary_encode().cast(field.type)
        return pa.array(values, pa.uint64() if field.name == "order_id" else pa.int64()).cast(field.type)

    return pa.table([column(field) for field in MBO], schema=MBO)
