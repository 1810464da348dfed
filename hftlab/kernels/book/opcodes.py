"""The op word of a compiled command: side, kind and flags in nine bits, instrument above.

A mispredicted kind costs about 2 ns, so the two kinds that make up nearly all flow come first: a
CANCEL is a REDUCE by everything, a MARKET is a limit at the far end of the ladder that may not rest.
"""

BUY, SELL = 0, 1  # bit 0: side as an index

KIND_SHIFT, KIND_MASK = 1, 7  # bits 1-3
ADD, REDUCE, REPLACE, MASS_CANCEL, CLEAR, INVALID, NOTHING, CONTROL = range(8)

NO_REST = 1 << 4  # what is left expires
ALL_OR_NOTHING = 1 << 5  # FOK
POST_ONLY = 1 << 6
PASSIVE = 1 << 7  # a fact: rests whatever it crosses
REQUEUE = PASSIVE | POST_ONLY  # of a REPLACE: a fact that gives up its place whatever it asks for
MARKET = 1 << 8  # no price; its level is the far end of the ladder

BOOK_SHIFT = 9

REJECTED = 16  # an outcome byte is a Status, or REJECTED + Reason
