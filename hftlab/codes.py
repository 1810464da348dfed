"""The vocabulary: every code, reject reason and sentinel, an integer with a name, declared once.

Kernels and Arrow buffers carry the integers; people read and write the names. A code compares equal
to its integer and to its name in any case (``Status.FILLED == "filled"``), and ``Action.parse`` takes
either.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Self

PRICE_SCALE = 1_000_000_000  # price units per 1.0, as in Databento's DBN
UNDEF_PRICE = 2**63 - 1  # "no price" in fixed-width price arrays, as in Databento's DBN
NOT_A_VALUE = -(2**63)  # a number that could not be read as an integer: NaN, 10^30, an inexact price
MAX_QTY = 2**63 - 1  # lots
NO_SLOT = 0  # slot 0 of every order array is never used, so zeroed memory is an empty book
DEFAULT_SYMBOL = "DEFAULT"  # the instrument of a table without a symbol column


class Code(IntEnum):
    """An integer code that also knows its names."""

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return self._by_name().get(other.lower()) is self
        return int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = IntEnum.__hash__

    @classmethod
    def _aliases(cls) -> dict[str, str]:
        """Further spellings, lower case -> member name."""
        return {}

    @classmethod
    def _by_name(cls) -> dict[str, Self]:
        names = cls.__dict__.get("_names_")
        if names is None:
            names = {member.name.lower(): member for member in cls}
            names |= {alias: cls[name] for alias, name in cls._aliases().items()}
            type.__setattr__(cls, "_names_", names)
        return names

    @classmethod
    def parse(cls, value: int | str) -> Self:
        """The member for an integer or a name in any case.

        Raises ValueError naming the value and what was expected.
        """
        try:
            return cls._by_name()[value.lower()] if isinstance(value, str) else cls(value)
        except (KeyError, ValueError):
            expected = ", ".join(f"{member.name} ({member.value})" for member in cls)
            raise ValueError(f"found {value!r}, expected one of {expected}") from None


def _extended(name: str, base: type[Code], more: str) -> type[Code]:
    """The codes of another class under the same integers, and one more behind them."""
    make: Any = Code  # a checker takes this call for that of a member
    return make(name, {member.name: int(member) for member in base} | {more: len(base)}, module=__name__)


class Side(Code):
    """Side of an order; the sign of what it does to the buyer's position."""

    BUY = 1
    SELL = -1

    @classmethod
    def _aliases(cls) -> dict[str, str]:
        return {"b": "BUY", "bid": "BUY", "a": "SELL", "s": "SELL", "ask": "SELL"}


class Action(Code):
    """What a command does at the venue."""

    NEW = 0
    CANCEL = 1
    REDUCE = 2  # qty is what is taken off; priority is kept
    REPLACE = 3  # qty is the new open quantity
    MASS_CANCEL = 4  # every order of one account in one symbol
    CLEAR = 5  # every order of one symbol
    RISK_CONTROL = 6  # sets a state of the risk gate: qty is a RiskControl


class OrderType(Code):
    """LIMIT has a worst price; MARKET takes any; PASSIVE has a price and never trades on arrival."""

    LIMIT = 0
    MARKET = 1
    PASSIVE = 2  # rests whatever it crosses: an order of an opening book, or of an auction


class Tif(Code):
    """Time in force: GTC and DAY may rest, IOC and FOK never do."""

    GTC = 0
    DAY = 1
    IOC = 2
    FOK = 3


class Status(Code):
    """The one outcome of a command."""

    RESTING = 0  # the order is open: after NEW (perhaps partly filled) or REDUCE
    FILLED = 1
    CANCELLED = 2
    EXPIRED = 3  # the remainder of an IOC or MARKET, or a FOK that could not fill
    REPLACED = 4
    REJECTED = 5  # nothing changed
    NO_EFFECT = 6  # a fact that does not change the book: T, F, N
    APPLIED = 7  # a RISK_CONTROL


class Reason(Code):
    """Why a command was rejected; FIX's word where FIX has one."""

    NONE = 0
    UNKNOWN_ORDER = 1
    DUPLICATE_ORDER = 2
    UNKNOWN_SYMBOL = 3
    INVALID_QTY = 4
    INVALID_PRICE = 5  # off the tick; or 0 or less, without the instrument's allow_nonpositive_prices
    POST_ONLY_WOULD_CROSS = 6
    SELF_TRADE = 7
    MAX_ORDER_QTY = 8
    MAX_NOTIONAL = 9
    MAX_POSITION = 10
    MAX_OPEN_ORDERS = 11
    PRICE_BAND = 12
    RATE_LIMIT = 13
    MAX_PORTFOLIO_VALUE = 14
    STOP_LOSS = 15
    REDUCE_ONLY = 16
    KILL_SWITCH = 17
    CAPACITY_EXHAUSTED = 18
    RESTRICTED_SYMBOL = 19
    MAX_OPEN_NOTIONAL = 20
    REPEATED_ORDER = 21
    UNKNOWN_ACCOUNT = 22

    @property
    def stage(self) -> Stage:
        """Where in the life of a command it is rejected for this."""
        if self <= Reason.INVALID_PRICE:
            return Stage.VALIDATE
        return _STAGES.get(self, Stage.LIMITS)

    @property
    def quotes_values(self) -> bool:
        """Whether a reject has an `observed_value`: an order's value, a count, a position."""
        return self.stage is Stage.LIMITS and self is not Reason.RESTRICTED_SYMBOL

    @property
    def quotes_limit(self) -> bool:
        """Whether a reject has a `limit_value` beside it."""
        return self.quotes_values and self is not Reason.UNKNOWN_ACCOUNT


Anomaly = _extended("Anomaly", Reason, "CROSSED")
"""What is wrong after a row: it was refused for that reason, or its event left the book crossed."""


class Stage(Code):
    """Where in the life of a command it was decided."""

    VALIDATE = 0  # the row alone, and whether the order it names is open
    KILL = 1
    LIMITS = 2
    SELF_TRADE = 3
    MATCH = 4


_STAGES = {  # of reasons that are neither the row's own nor limits
    Reason.POST_ONLY_WOULD_CROSS: Stage.MATCH,
    Reason.CAPACITY_EXHAUSTED: Stage.MATCH,
    Reason.SELF_TRADE: Stage.SELF_TRADE,
    Reason.KILL_SWITCH: Stage.KILL,
}


class RiskState(Code):
    """What an account, a symbol or everything may do."""

    ACTIVE = 0
    REDUCING = 1  # nothing that may increase a position
    HALTED = 2  # cancels only


class RiskControl(Code):
    """The qty of a RISK_CONTROL: 4 x scope + state, where state 3 is HALTED and cancels what is open."""

    ACCOUNT_ACTIVE = 0
    ACCOUNT_REDUCING = 1
    ACCOUNT_HALTED = 2
    ACCOUNT_KILLED = 3
    SYMBOL_ACTIVE = 4
    SYMBOL_REDUCING = 5
    SYMBOL_HALTED = 6
    SYMBOL_KILLED = 7
    ALL_ACTIVE = 8
    ALL_REDUCING = 9
    ALL_HALTED = 10
    ALL_KILLED = 11


class SelfTrade(Code):
    """What an incoming order does when it meets a resting order of its own owner."""

    NONE = 0  # trade
    CANCEL_NEWEST = 1
    CANCEL_OLDEST = 2
    CANCEL_BOTH = 3
    DECREMENT = 4


class GateEvent(Code):
    """What the risk gate did by itself."""

    SELF_TRADE_CANCEL = 0  # a resting order
    SELF_TRADE_DECREMENT = 1  # of a resting order
    KILL_CANCEL = 2
    STOP_LOSS = 3  # it struck
    STOP_CANCEL = 4
    STOP_CLOSE = 5  # an order of the gate that closes a position


EventType = _extended("EventType", Action, "NOTE")
"""What a command is, where latencies are counted apart; a NOTE is a fact that changes nothing."""


class Effect(Code):
    """What became of a command, as latencies are grouped by it."""

    RESTED = 0  # it or the order it names is open, and nothing traded
    TRADED = 1
    REMOVED = 2  # cancelled or expired, and nothing traded
    REJECTED = 3
    NOTHING = 4  # a NOTE, a RISK_CONTROL


class BookState(Code):
    """The book a command finds, as latencies are grouped by it."""

    EMPTY = 0  # nothing rests
    ONE_SIDED = 1
    TIGHT = 2  # best bid and best ask are a tick apart
    WIDE = 3  # further


class LatencyStage(Code):
    """What part of a command a latency is of."""

    COMMAND = 0  # all of it: from its start to where its outcome, fills and changes of the touch are written
    LOOKUP = 1  # the row is checked, its id becomes a slot and its price a level
    RISK = 2  # the checks of the risk gate
    MATCH = 3  # the book changes, and what the gate keeps of it
    PUBLISH = 4  # ids of makers, dead ids, the outcome and the touch


class MboAction(Code):
    """What the venue says has happened; only A, M, C and R change the book (Databento's letters)."""

    A = 0  # add: an order rests, at the back of its level
    M = 1  # modify: loses priority on a new price or a larger size
    C = 2  # cancel: `size` is taken off
    R = 3  # clear: the book is empty
    T = 4  # trade, as the aggressor saw it
    F = 5  # fill of a resting order; the C that follows is what changes the book
    N = 6  # nothing to the book: a halt marker, an administrative message


class Origin(Code):
    """Whether a row was observed or concluded from others."""

    OBSERVED = 0
    INFERRED = 1


MBO_FLAG_LAST = 128  # last record of an event: the book may be compared here (Databento)
MBO_FLAG_SNAPSHOT = 32  # from a snapshot, not from the stream (Databento)
MBO_FLAG_HIDDEN = (
    2  # a T of side 0 is of a hidden order whose side is masked, not a cross (theirs: publisher's)
)
MBO_FLAG_MAYBE_BAD = 4  # after a gap: the book may be wrong (Databento)
