"""A result as one self-contained HTML page: tables, and plots drawn as SVG within it."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hftlab.benchmark.cases import Case
from hftlab.benchmark.records import Latency, Measurement, Report
from hftlab.benchmark.report.tables import (
    COLD_COLUMNS,
    LATENCY_COLUMNS,
    LATENCY_TITLE,
    SPEED_COLUMNS,
    TARGET_COLUMNS,
    cold_rows,
    is_known,
    latency_rows,
    machine_rows,
    speed_rows,
    target_rows,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .5em 0 1.5em }
td, th { padding: .2em .9em .2em 0; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
h1 { font-size: 1.5em } h2 { font-size: 1.1em; margin-top: 2em }
.noisy { background: #fff3c4; padding: .5em .9em } svg { max-width: 100%; height: auto }
"""
PERCENTILES = (10, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.999)  # where curves have their points
SHOWN = (50, 90, 99, 99.9, 99.99, 99.999)  # and the axis its names
COLOURS = ("#1d4ed8", "#ea580c", "#0d9488", "#9333ea", "#ca8a04", "#be123c", "#65a30d", "#334155")
BARS = {"batch": "#93c5fd", "replay": "#5eead4", "event": "#fdba74", "python": "#d8b4fe"}
BAR_INCH, PANEL_INCH = 0.24, 2.6


def page(report: Report) -> str:
    """A whole HTML document."""
    title = f"hftlab bench, {report.created}"
    measured = report.measurements
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _noise(report),
        _table(("machine", ""), machine_rows(report), 2),
    ]
    if report.targets:
        parts.append(_section("Targets", TARGET_COLUMNS, target_rows(report.targets), 1, (3, 4, 5)))
    bars = _svg(partial(_speeds, measured), [0.9 + BAR_INCH * len(measured)])
    parts.append(
        _section("Speed (ns per command) and cost", SPEED_COLUMNS, speed_rows(measured), 1, plot=bars)
    )
    if histograms := _latencies(measured):
        parts_of_plot = panels(histograms)
        curves = _svg(partial(_curves, parts_of_plot), [PANEL_INCH] * len(parts_of_plot))
        parts.append(_section(LATENCY_TITLE, LATENCY_COLUMNS, latency_rows(measured), 2, plot=curves))
        whose = {m.case.name: one.interruptions for m, one in histograms}
        parts.append(_section("Stalls of the run and of the machine", ("case", ""), whose.items(), 2))
    if rows := cold_rows(measured):
        parts.append(_section("First call in a fresh process", COLD_COLUMNS, rows, 2))
    digests = ((m.case.name, m.digest) for m in measured)
    parts.append(_section("Digests", ("case", "digest"), digests, 2))
    head = f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
    return f"{head}<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"


def _section(
    title: str,
    columns: tuple[str, ...],
    rows: Iterable[tuple[Any, ...]],
    left: int,
    left_too: tuple[int, ...] = (),
    plot: str = "",
) -> str:
    return f"<h2>{title}</h2>{plot}{_table(columns, rows, left, left_too)}"


def _noise(report: Report) -> str:
    reasons = report.noise()
    return f"<p class='noisy'>A noisy machine: {html.escape('; '.join(reasons))}.</p>" if reasons else ""


def _latencies(measurements: Iterable[Measurement]) -> list[tuple[Measurement, Latency]]:
    return [(m, one) for m in measurements for one in m.latency]


def panels(histograms: list[tuple[Measurement, Latency]]) -> list[list[tuple[Measurement, Latency]]]:
    """The plots: each has as many cases as there are colours, and one kind unless all fit into one."""
    if len({m.case for m, _ in histograms}) <= len(COLOURS):
        return [histograms]
    kinds = dict.fromkeys(one.kind for _, one in histograms)
    split = ([pair for pair in histograms if pair[1].kind == kind] for kind in kinds)
    return [part[at : at + len(COLOURS)] for part in split for at in range(0, len(part), len(COLOURS))]


def _svg(draw: Callable[[list[Axes]], None], heights: list[float]) -> str:
    """Plots one below the other, which share their axes."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, sum(heights)), layout="constrained")
    FigureCanvasSVG(figure)
    plots = list(figure.subplots(len(heights), sharex=True, sharey=True, squeeze=False)[:, 0])
    draw(plots)
    for axes in plots:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8, labelbottom=True)
    drawn = io.StringIO()
    with rc_context({"svg.hashsalt": "hftlab"}):  # the same result gives the same page
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    svg = drawn.getvalue()
    return svg[svg.index("<svg") :]


def _speeds(measurements: tuple[Measurement, ...], plots: list[Axes]) -> None:
    """ns per command: a bar to the median, a line from the fastest to the slowest repetition."""
    from matplotlib.patches import Patch
    from matplotlib.ticker import StrMethodFormatter

    (axes,) = plots
    places = np.arange(len(measurements))[::-1]
    medians = np.array([m.ns for m in measurements])
    low, high = (np.array([pick(m.times_ns) for m in measurements]) for pick in (min, max))
    axes.barh(places, medians, color=[BARS[m.case.path] for m in measurements], height=0.7)
    axes.hlines(places, low, high, color="#1e3a8a", lw=1.4)
    for place, m in zip(places, measurements, strict=True):
        axes.annotate(f" {m.ns:,.1f}", (max(m.times_ns), place), va="center", fontsize=8)
    axes.set_yticks(places, [m.case.name for m in measurements])
    axes.set_ylim(-0.7, len(measurements) - 0.3)
    axes.set_xscale("log")
    axes.set_xlim(1, 2 * high.max())  # room for the figures
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="x", color="#ddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("ns per command: median, and from the fastest to the slowest repetition", fontsize=8)
    paths = dict.fromkeys(m.case.path for m in measurements)
    patches = [Patch(color=BARS[path], label=path) for path in paths]
    axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=7)


def _curves(parts: list[list[tuple[Measurement, Latency]]], plots: list[Axes]) -> None:
    """Time by percentile, on the axis of HdrHistogram's plots: each nine as wide as the one before."""
    for part, axes in zip(parts, plots, strict=True):
        _panel(part, axes)


def _panel(histograms: list[tuple[Measurement, Latency]], axes: Axes) -> None:
    """A colour for each case; a response is dashed."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    colours: dict[Case, str] = {}
    for m, one in histograms:
        histogram = one.histogram
        points = [(p, histogram.percentile(p)) for p in PERCENTILES if is_known(p, one.count)]
        style = "--" if one.kind == "response" else "-"
        axes.plot(
            [_nines(p) for p, _ in points],
            [max(1, ns) for _, ns in points],
            style,
            color=colours.setdefault(m.case, COLOURS[len(colours)]),
            lw=1.3,
            label=f"{m.case.name}, {one.kind}",
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda ns, _: _short_time(ns)))
    axes.set_xticks([_nines(p) for p in SHOWN], [f"{p:g} %" for p in SHOWN])
    axes.set_xlabel("percentile", fontsize=8)
    axes.grid(color="#ddd", lw=0.6)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=7)


def _short_time(ns: float) -> str:
    """A power of ten of ns, in the unit that suits it."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= scale:
            return f"{ns / scale:g} {unit}"
    return f"{ns:g} ns"


def _nines(percent: float) -> float:
    return -float(np.log10(1 - percent / 100))


def _table(
    head: Iterable[str], rows: Iterable[tuple[Any, ...]], left: int, left_too: tuple[int, ...] = ()
) -> str:
    """An HTML table; the first `left` columns (and `left_too`) are text, the others numbers."""

    def line(tag: str, values: Iterable[Any]) -> str:
        kinds = ("" if place < left or place in left_too else " class=n" for place in range(99))
        cells = (f"<{tag}{k}>{html.escape(str(v))}</{tag}>" for k, v in zip(kinds, values, strict=False))
        return f"<tr>{''.join(cells)}</tr>"

    return f"<table>{line('th', head)}{''.join(line('td', row) for row in rows)}</table>"
