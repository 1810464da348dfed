"""The codes of `hftlab.codes` as kernels read them: plain integers, each declared here and nowhere else.

numba compiles a global only if it is a number, not a member of an enumeration. Every line unpacks a whole
enumeration, so one that gains a member fails here, at import, and not in a kernel that has never heard of it.
Where two enumerations share a word, or one shares it with a flag of `opcodes`, the name says which is meant.
"""

from __future__ import annotations

from hftlab.codes import (
    Action,
    BookState,
    Effect,
    EventType,
    GateEvent,
    LatencyStage,
    MboAction,
    OrderType,
    Reason,
    RiskControl,
    RiskState,
    SelfTrade,
    Side,
    Status,
    Tif,
)

NEW, CANCEL, REDUCE, REPLACE, MASS_CANCEL, CLEAR, RISK_CONTROL = map(int, Action)
NOTE = int(EventType.NOTE)  # an action that only compiled tables have: a fact that changes nothing
EVENT_TYPES = len(EventType)

SIDE_BUY, SIDE_SELL = map(int, Side)  # 1 and -1; opcodes.BUY and SELL are indices
LIMIT_ORDER, MARKET_ORDER, PASSIVE_ORDER = map(int, OrderType)  # opcodes.MARKET and PASSIVE are bits of an op
GTC, DAY, IOC, FOK = map(int, Tif)

(
    RESTING,
    FILLED,
    CANCELLED,
    EXPIRED,
    REPLACED,
    STATUS_REJECTED,  # opcodes.REJECTED is where outcome bytes of rejected commands begin
    NO_EFFECT,
    APPLIED,
) = map(int, Status)

(
    NO_REASON,
    UNKNOWN_ORDER,
    DUPLICATE_ORDER,
    UNKNOWN_SYMBOL,
    INVALID_QTY,
    INVALID_PRICE,
    POST_ONLY_WOULD_CROSS,
    SELF_TRADE,
    MAX_ORDER_QTY,
    MAX_NOTIONAL,
    MAX_POSITION,
    MAX_OPEN_ORDERS,
    PRICE_BAND,
    RATE_LIMIT,
    MAX_PORTFOLIO_VALUE,
    STOP_LOSS,
    REDUCE_ONLY,
    KILL_SWITCH,
    CAPACITY_EXHAUSTED,
    RESTRICTED_SYMBOL,
    MAX_OPEN_NOTIONAL,
    REPEATED_ORDER,
    UNKNOWN_ACCOUNT,
) = map(int, Reason)
REASONS = len(Reason)

ACTIVE, REDUCING, HALTED = map(int, RiskState)
KILLED = int(RiskControl.ACCOUNT_KILLED)  # a state that only a RISK_CONTROL has
LAST_CONTROL = max(map(int, RiskControl))
ALLOW_SELF_TRADE, CANCEL_NEWEST, CANCEL_OLDEST, CANCEL_BOTH, DECREMENT = map(int, SelfTrade)
(
    SELF_TRADE_CANCEL,
    SELF_TRADE_DECREMENT,
    KILL_CANCEL,
    STOP_STRUCK,  # GateEvent.STOP_LOSS; STOP_LOSS is the reason
    STOP_CANCEL,
    STOP_CLOSE,
) = map(int, GateEvent)

EFFECT_RESTED, EFFECT_TRADED, EFFECT_REMOVED, EFFECT_REJECTED, EFFECT_NOTHING = map(int, Effect)
EFFECTS = len(Effect)
BOOK_EMPTY, BOOK_ONE_SIDED, BOOK_TIGHT, BOOK_WIDE = map(int, BookState)
BOOK_STATES = len(BookState)
STAGE_COMMAND, STAGE_LOOKUP, STAGE_RISK, STAGE_MATCH, STAGE_PUBLISH = map(int, LatencyStage)

MBO_ADD, MBO_MODIFY, MBO_CANCEL, MBO_CLEAR, MBO_TRADE, MBO_FILL, MBO_NOTHING = map(int, MboAction)
