"""The risk gate of the package against its slow twin: every decision, fill, book and event."""

from __future__ import annotations

import pytest
import risk_flows
from reference import frames
from reference.package import settings

import hftlab

NAMES = ("outcomes", "fills", "rejects", "l1", "book")
LEVELS = 3


def replayed(flow: risk_flows.RiskFlow, names=NAMES, levels: int = LEVELS, **options):
    """The outputs of the package, in the twin's types."""
    orders = flow.orders
    config = settings(orders.tick, orders.allow_nonpositive, LEVELS)
    run = hftlab.replay(
        orders.table(),
        record=(*names, "depth", "gate"),
        config=config,
        limits=limits_of(flow),
        **options,
    )
    found = frames.of_run(run, names, levels)
    return found | {"gate": frames.of_frame(run.gate, frames.GATE_COLUMNS["gate"])}, run


def limits_of(flow: risk_flows.RiskFlow) -> hftlab.Limits:
    """The limits of a flow as the package takes them."""
    return hftlab.Limits.from_table(risk_flows.limits_table(flow.limits))


CASES = [(name, seed) for name in risk_flows.FLOWS for seed in range(3)]


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_every_path_decides_as_the_twin_does(name, seed):
    """Batch, events, chunks and threads: all outputs equal the twin's, and the digests each other."""
    flow = risk_flows.make(name, 1_500, seed)
    expected = flow.expected(depth_levels=LEVELS)
    found, run = replayed(flow)
    assert frames.first_difference(expected, found) is None, (name, seed)
    for options in ({"path": "event"}, {"threads": 2}, {"chunk_rows": 331}):
        again, other = replayed(flow, **options)
        assert frames.first_difference(expected, again) is None, (name, seed, options)
        assert other.digest == run.digest


def test_a_great_many_messages_a_second_are_counted_in_the_memory_they_take():
    """A limit of 10^12 costs nothing; one of 1,000 holds at the 1,001st message, whoever else sends."""
    rows = 3_000
    flow = {
        "ts": list(range(rows)),
        "action": ["NEW"] * rows,
        "order_id": list(range(rows)),
        "side": [1] * rows,
        "price": [1] * rows,
        "qty": [1] * rows,
        "account": [row % 2 for row in range(rows)],
    }
    assert hftlab.replay(flow, limits=hftlab.Limits(max_orders_per_second=10**12)).rejects.is_empty()
    for path in ("batch", "event"):
        rejects = hftlab.replay(flow, path=path, limits=hftlab.Limits(max_orders_per_second=1_000)).rejects
        assert rejects["seq"].to_list() == list(range(2_000, rows))
        assert rejects["observed_value"].to_list() == [row // 2 + 1 for row in range(2_000, rows)]
