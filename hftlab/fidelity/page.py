"""A certificate as one readable page: self-contained HTML, also what a notebook shows.

The page is drawn from the plain values of `Certificate.as_dict()`, and its two tables from rows. So this
module needs nothing of the class, and the JSON of a certificate holds every number that its page shows.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hftlab.codes import PRICE_SCALE

Values = Mapping[str, Any]  # of a certificate, of a divergence, of a fact
Rows = Iterable[tuple[Any, ...]]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .5em 0 1.5em }
td, th { padding: .2em .9em .2em 0; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
tr.here { background: #fff3c4 }
h1 { font-size: 1.5em } h2 { font-size: 1.1em; margin-top: 2em }
.small { color: #666; font-size: .9em }
"""
SIDES = {1: "buy", -1: "sell", 0: ""}


def page(certificate: Values, measures: Rows, causes: Rows) -> str:
    """A whole HTML document.

    `certificate` is an `as_dict()`. A row of `measures` is (name, count, of, share); a row of `causes` is
    (name, meaning, executions).
    """
    title = f"Certificate of fidelity: {html.escape(_name(certificate))}"
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>"
        f"<style>{STYLE}</style><body>{body(certificate, measures, causes)}</body></html>\n"
    )


def body(certificate: Values, measures: Rows, causes: Rows) -> str:
    """What a page and a notebook cell have in common; the arguments are those of `page`."""
    c = certificate
    parts = [
        f"<h1>Certificate of fidelity: {html.escape(_name(c))}</h1>",
        f"<p>{html.escape(verdict(c))}</p>",
    ]
    rows: list[tuple[str, ...]]
    rows = [(name, f"{count:,}", f"{of:,}", _percent(share)) for name, count, of, share in measures]
    parts.append(_table(("measure", "", "of", "share"), rows, left=1))
    if c["over_time"]:
        parts.append(f"<h2>Over the course of the flow</h2>{_curves(c['over_time'])}")
    rows = [(name, meaning, f"{count:,}") for name, meaning, count in causes]
    if rows:
        parts.append("<h2>Executions that were not reproduced, by cause</h2>")
        parts.append(_table(("cause", "what it means", "executions"), rows, left=2))
    parts.append("<h2>What was compared</h2>" + _table(("", ""), what_was_compared(c), left=1))
    if c["first_divergence"] is not None:
        parts.append(_divergence(c["first_divergence"]))
    if remarks := [*(f"damaged: {fault}" for fault in c["faults"]), *c["notes"]]:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in remarks)
        parts.append(f"<h2>What the feed reported</h2><ul>{lines}</ul>")
    return "".join(parts)


def verdict(certificate: Values) -> str:
    """One sentence a person can act on."""
    c = certificate
    if not c["levels"]:
        return (
            "The feed has price levels and no orders: books can be rebuilt, but nothing can be matched. "
            f"The rebuilt touch is the venue's own after {_percent(c['touch_share'])} of the events compared."
        )
    if not c["executions"]:
        return "The venue executed no displayed order in this flow, so there is nothing to reproduce."
    reproduced, equal = _percent(c["execution_share"]), _percent(c["touch_share"])
    sentence = (
        f"Matching the inferred commands reproduces {reproduced} of the venue's displayed executions exactly "
        f"(maker, price, quantity, order); after {equal} of the events both best prices are equal."
    )
    if hidden := c["hidden"]:
        sentence += f" {hidden:,} more executions took hidden orders and can't be reproduced by any replay."
    return sentence


def price(units: int) -> str:
    """A price of 1e-9 units as a decimal."""
    whole, part = divmod(abs(units), PRICE_SCALE)
    return f"{'-' if units < 0 else ''}{whole:,}.{f'{part:09d}'.rstrip('0').ljust(2, '0')}"


def _name(c: Values) -> str:
    return str(c["path"]).rsplit("/", 1)[-1] or "a table"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def what_was_compared(c: Values) -> list[tuple[str, str]]:
    """Counts with their names, in words; `c` is an `as_dict()`."""

    def reasons(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"

    return [
        ("format", c["format"]),
        ("facts", f"{c['rows']:,} of {c['symbols']:,} instrument(s)"),
        ("commands inferred", f"{c['commands']:,}"),
        ("facts that could not be applied", reasons(c["facts_rejected"])),
        ("commands that were rejected", reasons(c["commands_rejected"])),
        ("events after which the venue's book was crossed", f"{c['crossed_events']:,}"),
        ("orders open at the end", f"{c['open_orders']:,}"),
    ]


CURVES = (  # name, part, whole, colour
    ("executions reproduced", "reproduced", "executions", "#c2410c"),
    ("touch equal", "touch_equal", "events", "#1d4ed8"),
    ("levels equal", "depth_equal", "events", "#0f766e"),
)


def _curves(spans: Sequence[Values]) -> str:
    """The shares over the course of the flow, as an SVG picture."""
    import io

    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for name, part, whole, colour in CURVES:
        some = [span for span in spans if span[whole] > 0]  # a share of nothing is no point
        shares = [span[part] / span[whole] for span in some]
        axes.plot([span["row"] for span in some], shares, ".-", color=colour, lw=1.2, ms=4, label=name)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks((0, 0.5, 1), ("0 %", "50 %", "100 %"))
    marks = spans[:: max(1, len(spans) // 6)]
    axes.set_xticks([span["row"] for span in marks], [f"{_second(span['ts']):%H:%M:%S}" for span in marks])
    axes.grid(color="#ddd", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    drawn = io.StringIO()
    with rc_context({"svg.hashsalt": "hftlab"}):  # the same certificate gives the same page
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    svg = drawn.getvalue()  # with an XML header, which has no place inside HTML
    return svg[svg.index("<svg") :]


def _second(ts: int) -> datetime:
    """The second that a time in ns is in: a datetime has no ns."""
    return datetime.fromtimestamp(ts // 10**9, UTC)


def _divergence(d: Values) -> str:
    when = f"{_second(d['ts']):%Y-%m-%d %H:%M:%S}.{d['ts'] % 10**9:09d} UTC"
    where = f"fact {d['row']:,} (sequence {d['sequence']:,}), {html.escape(d['symbol'])}, {when}"
    cause = f", cause {d['cause']}" if d["cause"] else ""
    rows, marked = [], []
    for fact in d["facts"]:
        place = (str(fact["row"]), fact["action"], SIDES[fact["side"]], price(fact["price"]))
        rows.append((*place, f"{fact['size']:,}", str(fact["order_id"])))
        marked.append(fact["row"] == d["row"])
    fills = (fill_lines(d["venue"]), fill_lines(d["replay"]))
    books = (book_lines(d["venue_book"]), book_lines(d["replay_book"]))
    return (
        f"<h2>The first divergence: {d['what']}{cause}</h2><p class='small'>{where}</p>"
        + _table(("the venue executed", "the replay"), [fills], left=2)
        + _table(("the venue's book before", "the replay's"), [books], left=2)
        + "<p class='small'>the facts around it</p>"
        + _table(("row", "action", "side", "price", "size", "order"), rows, left=0, marked=marked)
    )


def fill_lines(fills: Iterable[Values]) -> str:
    """Fills of a divergence, one a line."""
    lines = [f"{fill['qty']:,} @ {price(fill['price'])} of order {fill['maker_order_id']}" for fill in fills]
    return "\n".join(lines) or "nothing"


def book_lines(levels: Sequence[tuple[int, int, int]]) -> str:
    """Levels (price, lots, side) as a ladder, the highest price first."""
    asks = [f"sell {lots:,} @ {price(units)}" for units, lots, side in levels if side < 0]
    bids = [f"buy {lots:,} @ {price(units)}" for units, lots, side in levels if side > 0]
    return "\n".join([*reversed(asks), *bids]) or "empty"


def _table(head: Iterable[str], rows: Rows, left: int, marked: list[bool] | None = None) -> str:
    """An HTML table; the first `left` columns are text, the others numbers."""

    def cell(tag: str, column: int, value: Any) -> str:
        text = html.escape(str(value)).replace("\n", "<br>")
        return f"<{tag}{'' if column < left else ' class=n'}>{text}</{tag}>"

    def line(tag: str, values: Iterable[Any], here: bool = False) -> str:
        cells = "".join(cell(tag, column, value) for column, value in enumerate(values))
        return f"<tr{' class=here' if here else ''}>{cells}</tr>"

    lines = [line("td", row, bool(marked and marked[i])) for i, row in enumerate(rows)]
    return f"<table>{line('th', head)}{''.join(lines)}</table>"
