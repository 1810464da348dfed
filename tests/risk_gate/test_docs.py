"""docs/RISK.md: each of its examples is refused as it says, and every check has one."""

import re
import tomllib

import pyarrow as pa
import pytest

import hftlab
from hftlab.codes import PRICE_SCALE, Action, Reason, RiskControl
from hftlab.scenarios.report import UNITS, shown
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "RISK.md").read_text(encoding="utf-8")
ORDER = re.compile(
    r"(?:(?P<later>\d+) s later )?(?P<account>\d+) (?P<side>buys|sells) (?P<qty>\d+) at (?P<price>\w+)"
)
STATES = {"halted": RiskControl.ACCOUNT_HALTED, "reducing": RiskControl.ACCOUNT_REDUCING}


def table(heading):
    """The cells of the rows of the first table after a heading."""
    lines = PAGE.partition(heading)[2].partition("\n| --- ")[2].split("\n")[1:]
    rows = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


CHECKS, EXAMPLES = table("## The order of checks"), table("### An example of each")


def orders(story):
    """The rows of an example as an orders table."""
    rows, second = [], 0
    for number, said in enumerate(story.split("; "), 1):
        row = {"order_id": number, "action": "NEW", "side": 1, "price": 0, "qty": 0, "order_type": "LIMIT"}
        if match := ORDER.fullmatch(said):
            second += int(match["later"] or 0)
            market = match["price"] == "market"
            row |= {
                "side": 1 if match["side"] == "buys" else -1,
                "qty": int(match["qty"]),
                "price": 0 if market else int(match["price"]) * PRICE_SCALE,
                "order_type": "MARKET" if market else "LIMIT",
                "account": int(match["account"]),
            }
        else:
            account, state = re.fullmatch(r"(\d+) (?:is )?([\w ]+)", said).groups()
            control = {"action": Action.RISK_CONTROL.name, "qty": int(STATES.get(state, 0))}
            row |= control if state in STATES else {"action": {"cancels all": "MASS_CANCEL"}[state]}
            row["account"] = int(account)
        rows.append(row | {"ts": second * 10**9, "symbol": "A"})
    columns = pa.Table.from_pylist(rows)
    return columns.set_column(
        columns.column_names.index("ts"), "ts", columns["ts"].cast(pa.timestamp("ns", "UTC"))
    )


def test_every_check_has_an_example_with_its_reason():
    """Numbers and reasons are those of the table of checks."""
    assert [row[0] for row in CHECKS] == [row[0] for row in EXAMPLES] == [str(i) for i in range(1, 17)]
    assert [row[2] for row in CHECKS] == [row[3] for row in EXAMPLES]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example[0]}-{example[3].strip('`')}")
def test_an_example_is_refused_as_it_says(example):
    """The last row alone, for that reason, at the stage of its check, with those values."""
    number, keys, story, reason, limit, observed = example
    given = tomllib.loads("\n".join(re.findall("`(.+?)`", keys)))
    limits = hftlab.Limits(**given)
    flow = orders(story)
    for way in ("batch", "event"):
        run = hftlab.replay(flow, limits=limits, tick_size=1.0, path=way)
        (row,) = run.rejects.to_dicts()
        unit = UNITS[Reason[row["reason"]]]
        assert row["seq"] == flow.num_rows - 1
        assert (row["reason"], row["stage"]) == (reason.strip("`"), CHECKS[int(number) - 1][3])
        assert shown(row["limit_value"], unit) == limit
        assert shown(row["observed_value"], unit) == observed
