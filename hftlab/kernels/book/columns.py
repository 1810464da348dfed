"""The columns of an orders table as every kernel reads them: integers, absent ones of length 0."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.kernels.codes import MARKET_ORDER, NEW, REPLACE
from hftlab.kernels.primitives.compile import helper
from hftlab.kernels.primitives.intrinsics import ZERO, bare, ix


class Columns(NamedTuple):
    """An orders table as integers; a column that is absent has length 0 and means its default."""

    action: np.ndarray  # int8
    side: np.ndarray  # int8
    order_type: np.ndarray  # int8
    tif: np.ndarray  # int8
    post_only: np.ndarray  # bool
    order_id: np.ndarray  # int64, the bits of a uint64
    new_order_id: np.ndarray  # int64
    price: np.ndarray  # int64, 1e-9; NOT_A_VALUE where it could not be read
    qty: np.ndarray  # int64, lots; NOT_A_VALUE where it could not be read
    book: np.ndarray  # int32
    account: np.ndarray  # int32


@helper
def bare_columns(columns):
    """The same columns without reference counts (see intrinsics.py)."""
    return Columns(
        bare(columns.action),
        bare(columns.side),
        bare(columns.order_type),
        bare(columns.tif),
        bare(columns.post_only),
        bare(columns.order_id),
        bare(columns.new_order_id),
        bare(columns.price),
        bare(columns.qty),
        bare(columns.book),
        bare(columns.account),
    )


@helper
def value_at(column, row):
    """The value in a row, or 0 where the column is absent."""
    return np.int64(column[ix(row)]) if column.size else ZERO


class RawCommand(NamedTuple):
    """A row of an orders table, int64 each, as the event path and the gate's first checks take it."""

    row: int  # what its fills are noted under
    book: int
    action: int
    side: int
    order_type: int
    tif: int
    post_only: int
    key: int  # order id
    new_key: int  # of a REPLACE; where the column is absent the same
    price: int
    qty: int
    account: int
    flags: int  # of the op, besides those of its columns: opcodes.PASSIVE where rows are facts
    time: int  # ns, for the risk gate


@helper
def raw_command(columns, row, flags, time):
    """A row as one bundle; the compiler leaves out what nobody reads of it."""
    key = columns.order_id[ix(row)]
    return RawCommand(
        np.int64(row),
        value_at(columns.book, row),
        value_at(columns.action, row),
        value_at(columns.side, row),
        value_at(columns.order_type, row),
        value_at(columns.tif, row),
        value_at(columns.post_only, row),
        key,
        columns.new_order_id[ix(row)] if columns.new_order_id.size else key,
        value_at(columns.price, row),
        value_at(columns.qty, row),
        value_at(columns.account, row),
        np.int64(flags),
        np.int64(time),
    )


@helper
def names_price(action, order_type):
    """Whether a command's price means something."""
    return (action == NEW and order_type != MARKET_ORDER) or action == REPLACE
