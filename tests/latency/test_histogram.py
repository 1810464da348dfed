"""Histograms against the `hdrhistogram` package: every figure, every file, in both directions."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import hftlab
from hftlab.errors import FormatError, OutputError, UsageError
from hftlab.kernels.primitives.histogram import TALLY, record_all
from hftlab.latency.histogram import Histogram, read_hlog, write_hlog

HOUR = 3_600_000_000_000
PERCENTS = (0, 1e-9, 0.01, 1, 25, 50, 66.6, 90, 95, 99, 99.9, 99.99, 99.999, 100)
MAX = 2**63 - 1


@pytest.fixture(scope="module")
def hdr():
    """The other implementation."""
    return pytest.importorskip("hdrh.histogram").HdrHistogram


def theirs(hdr, values, highest=HOUR, digits=3):
    other = hdr(1, highest, digits)
    for value in values:
        assert other.record_value(int(value))
    return other


def assert_same(ours, other):
    """All that both can say about their counts."""
    assert np.array_equal(ours.counts, np.array(other.counts, np.int64)[: ours.counts.size])
    assert ours.counts.size == other.counts_len
    percentiles = other.get_percentile_to_value_dict(PERCENTS)  # of nothing it has none
    assert {p: ours.percentile(p) for p in PERCENTS} == (percentiles or dict.fromkeys(PERCENTS, 0))
    assert (ours.count, ours.min, ours.max) == (
        other.get_total_count(),
        other.get_min_value(),
        other.get_max_value(),
    )
    assert ours.mean == other.get_mean_value()
    assert ours.stddev == other.get_stddev()


def printed(other):
    out = io.BytesIO()
    other.output_percentile_distribution(out, 1.0)
    return out.getvalue().decode()


def adversarial(highest, half):
    """Values beside every border between buckets, and the ends."""
    powers = [1 << n for n in range(highest.bit_length())]
    around = {v + d for v in powers for d in (-1, 0, 1)}
    odd = {(v << 1) + (v >> half) * k for v in powers for k in (-1, 1)}
    return sorted(v for v in {0, highest} | around | odd if 0 <= v <= highest)


SAMPLES = {
    "exponential": lambda r: r.exponential(5_000, 3_000).astype(np.int64),
    "heavy tail": lambda r: (r.pareto(0.6, 3_000) * 100).clip(0, HOUR).astype(np.int64),
    "uniform in powers": lambda r: (2.0 ** r.uniform(0, 41, 3_000)).astype(np.int64),
    "one value": lambda r: np.full(1_000, 12_345),
    "zeros and one stall": lambda r: np.append(np.zeros(999, np.int64), 1_000_000),
    "nothing": lambda r: np.zeros(0, np.int64),
}


@pytest.mark.parametrize(
    ("name", "digits"), [*((name, 3) for name in SAMPLES), *(("heavy tail", d) for d in (1, 2, 4, 5))]
)
def test_random_samples_give_the_same_figures(hdr, name, digits):
    """Counts, percentiles, smallest, largest, mean and deviation are hdrhistogram's."""
    highest = HOUR if digits <= 3 else 10**5
    values = SAMPLES[name](np.random.default_rng(digits)).clip(0, highest)
    ours = Histogram(values, highest=highest, digits=digits)
    other = theirs(hdr, values, highest, digits)
    assert_same(ours, other)
    assert ours.hgrm() == printed(other)


@pytest.mark.parametrize("digits", [1, 3])
@pytest.mark.parametrize("highest", [2, 3, 1_000, 2**20 - 1, 2**20, HOUR, 2**62, MAX])
def test_borders_of_buckets_are_the_same(hdr, digits, highest):
    """Values around every power of two and bucket, up to the largest that an int64 holds."""
    ours = Histogram(highest=highest, digits=digits)
    values = adversarial(highest, ours.half)
    assert_same(ours.record(values), theirs(hdr, values, highest, digits))


LAYOUT = st.tuples(st.integers(1, 2), st.integers(2, MAX))


@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])  # theirs is slow to shrink
@given(st.data(), LAYOUT)
def test_any_sample_gives_the_same_figures_and_files(hdr, data, layout):
    """Of any values in any layout: figures, printed distribution, and the compressed form both ways."""
    digits, highest = layout
    value = st.integers(0, highest) | st.integers(0, highest.bit_length() - 1).map(lambda n: 1 << n)
    values = data.draw(st.lists(value, max_size=30))
    ours, other = Histogram(values, highest=highest, digits=digits), theirs(hdr, values, highest, digits)
    assert_same(ours, other)
    assert ours.hgrm() == printed(other)
    assert ours.encode() == other.encode()
    assert_same(ours, hdr.decode(ours.encode()))
    assert_same(Histogram.decode(other.encode()), other)


@pytest.mark.parametrize(
    "counts",
    [[1, 0, 1], [0, 0, 5], [7, 0, 0, 0, 2**40, 0, 2**20 + 1], [0] * 5_000 + [127, 128], [2**54]],
)
def test_the_compressed_form_keeps_long_runs_and_large_counts(hdr, counts):
    """Counts of up to eight bytes, single empty buckets and long runs of them: both read them."""
    ours = Histogram()
    ours.counts[: len(counts)] = counts
    assert np.array_equal(np.array(hdr.decode(ours.encode()).counts, np.int64), ours.counts)
    assert np.array_equal(Histogram.decode(ours.encode()).counts, ours.counts)


@pytest.mark.parametrize("count", [2**55 - 1, 2**55, 2**56, 2**62 + 5, MAX])
def test_counts_of_nine_bytes_come_back(count):
    """The ninth byte of a count holds eight bits (hdrhistogram 0.10.8 does not read those)."""
    ours = Histogram()
    ours.counts[3] = count
    assert Histogram.decode(ours.encode()).counts[3] == count


def test_their_reader_reads_our_log(hdr, tmp_path):
    """Intervals with their tags, times and counts."""
    log = pytest.importorskip("hdrh.log")
    rng = np.random.default_rng(1)
    parts = [
        ("NEW.RESTED", 1_700_000_000.0, 0.5, Histogram(rng.integers(0, 10_000, 500))),
        (None, 1_700_000_000.5, 1.25, Histogram(rng.integers(0, 10**9, 500))),
    ]
    path = write_hlog(tmp_path / "a.hlog", parts)
    reader = log.HistogramLogReader(str(path), hdr(1, HOUR, 3))
    for tag, start, length, ours in parts:
        read = reader.get_next_interval_histogram()
        assert read.get_tag() == tag
        assert read.get_start_time_stamp() == start * 1000
        assert read.get_end_time_stamp() == (start + length) * 1000
        assert_same(ours, read)
    assert reader.get_next_interval_histogram() is None
    reader.close()


def test_we_read_their_log(hdr, tmp_path):
    """A log by their writer gives the histograms that went in."""
    log = pytest.importorskip("hdrh.log")
    samples = [np.random.default_rng(i).integers(0, 10**6, 300) for i in range(3)]
    path = tmp_path / "b.hlog"
    with path.open("w") as file:
        writer = log.HistogramLogWriter(file)
        writer.output_log_format_version()
        writer.output_legend()
        for i, values in enumerate(samples):
            other = theirs(hdr, values)
            writer.output_interval_histogram(other, 10.0 + i, 11.0 + i)
    found = read_hlog(path)
    assert [(tag, start, length) for tag, start, length, _ in found] == [
        (None, 10.0 + i, 1.0) for i in range(3)
    ]
    for (*_, ours), values in zip(found, samples, strict=True):
        assert_same(ours, theirs(hdr, values))


def test_merged_is_as_if_recorded_together():
    """Counts, smallest and largest of two are those of all values at once; an empty one adds nothing."""
    rng = np.random.default_rng(4)
    one, two = rng.integers(50, 10**6, 1_000), rng.integers(0, 10**9, 1_000)
    merged = Histogram(one).merge(Histogram(two)).merge(Histogram())
    whole = Histogram(np.concatenate([one, two]))
    assert np.array_equal(merged.counts, whole.counts)
    assert np.array_equal(merged.tally, whole.tally)
    assert np.array_equal(Histogram().merge(whole).tally, whole.tally)
    with pytest.raises(UsageError, match=r"expected \(3, 3600000000000\)"):
        Histogram().merge(Histogram(digits=2))


def test_what_has_no_bucket_is_refused_from_python_and_counted_in_a_kernel():
    """Nothing is dropped: negative and too large values are an error with their place, or in `outside`."""
    histogram = Histogram(highest=1_000, digits=1)
    for values, place, found in (([5, -1], 1, -1), ([5, 6, 10**6], 2, 10**6), ([2**64 - 1], 0, 2**64 - 1)):
        with pytest.raises(UsageError, match=f"value {place}: found {found}, expected 0 to 1023"):
            histogram.record(np.array(values))
    assert histogram.count == histogram.outside == 0
    record_all(histogram.counts, histogram.tally, histogram.half, np.array([-1, 3, 1023, 1024, MAX]))
    assert (histogram.count, histogram.outside, histogram.min, histogram.max) == (2, 3, 3, 1023)
    with pytest.raises(UsageError, match="whole numbers"):
        histogram.record([1.5])


def test_percentiles_answer_to_the_precision_asked_for():
    """A percentile is at most one part in 10^digits above the value it stands for."""
    values = np.sort(np.random.default_rng(7).integers(1, 10**9, 10_000))
    for digits in (1, 2, 3, 4):
        histogram = Histogram(values, digits=digits)
        for percent in (1, 50, 99, 99.9):
            exact = values[round(percent / 100 * values.size) - 1]
            assert exact <= histogram.percentile(percent) <= exact * (1 + 10.0**-digits)


def test_frame_and_figures_agree():
    """The buckets in use, in order, cumulative to 1; jitter is p99 less p50; page and text name them."""
    histogram = hftlab.Histogram([1, 1, 5, 5_000])
    frame = histogram.to_frame()
    assert frame.rows() == [(1, 1, 2, 0.5), (5, 5, 1, 0.75), (5000, 5003, 1, 1.0)]
    assert histogram.jitter == 5003 - 1
    assert histogram.summary()["p99.9"] == 5003
    assert "p99.99 5,003" in repr(histogram)
    assert "<th style='text-align:left'>p99.99</th><td>5,003" in histogram._repr_html_()
    assert Histogram().to_frame().rows() == []


def test_files_are_written_whole_or_not_at_all(tmp_path):
    """.hgrm and .hlog through the same door as every other file; a place that isn't there is an error."""
    histogram = Histogram([10, 20, 30])
    assert histogram.write_hgrm(tmp_path / "a.hgrm").read_text() == histogram.hgrm()
    assert "0.010 " in histogram.hgrm(scale=1_000)
    assert read_hlog(histogram.write_hlog(tmp_path / "a.hlog", 5.0, 2.0))[0][1:3] == (5.0, 2.0)
    with pytest.raises(OutputError):
        histogram.write_hgrm(tmp_path / "none" / "a.hgrm")
    with pytest.raises(UsageError, match="tag: found 'a,b'"):
        write_hlog(tmp_path / "c.hlog", [("a,b", 0.0, 0.0, histogram)])
    assert not (tmp_path / "c.hlog").exists()


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"digits": 0}, "digits"),
        ({"digits": 6}, "digits"),
        ({"highest": 1}, "highest"),
        ({"highest": 2**63}, "highest"),
        ({"highest": 1e9}, "highest"),
    ],
)
def test_layouts_that_make_no_sense_are_refused(what, why):
    """Digits from 1 to 5, the largest value a whole number from 2."""
    with pytest.raises(UsageError, match=why):
        Histogram(**what)
    with pytest.raises(UsageError, match="percentile: found 101"):
        Histogram().percentile(101)


@settings(max_examples=150)
@given(st.data())
def test_damaged_text_is_an_error_and_nothing_else(data):
    """Bytes flipped, cut off or put in: a histogram or a FormatError."""
    whole = bytearray(Histogram([3, 50, 50, 7_000, 10**9]).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(whole) - 1))
        kind = data.draw(st.sampled_from(("flip", "cut", "insert")))
        if kind == "flip":
            whole[place] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del whole[place:][:1]
            whole = whole[: max(1, place)]
        else:
            whole.insert(place, data.draw(st.integers(0, 255)))
    with suppress(FormatError):
        assert Histogram.decode(bytes(whole)).count >= 0


def test_damaged_settings_are_named():
    """Every field that is checked says what was found and what was expected."""
    import base64
    import zlib

    from hftlab.latency.histogram_files import COOKIE, INNER, OUTER

    def text(*header, counts=b"\x02", outer=0x1C849314):
        body = zlib.compress(INNER.pack(*header) + counts)
        return base64.b64encode(OUTER.pack(outer, len(body)) + body)

    good = (COOKIE, 1, 0, 3, 1, HOUR, 1.0)
    assert Histogram.decode(text(*good)).count == 1
    for place, value, words in (
        (0, 7, "cookie 0x7"),
        (1, 9, "1 bytes of counts, expected 9"),
        (2, 1, "index offset 1"),
        (3, 6, "6 significant digits"),
        (4, 1_000, "values from 1000"),
        (5, 1, "to 1, expected"),
        (6, 0.5, "conversion ratio 0.5"),
    ):
        with pytest.raises(FormatError, match=words):
            Histogram.decode(text(*good[:place], value, *good[place + 1 :]))
    with pytest.raises(FormatError, match="cookie 0x5"):
        Histogram.decode(text(*good, outer=5))
    with pytest.raises(FormatError, match="a count that is cut off"):
        Histogram.decode(text(*good, counts=b"\x82"))
    with pytest.raises(FormatError, match="at most 33792"):
        Histogram.decode(text(COOKIE, 4, *good[2:], counts=b"\xff\xff\xff\x01"))


def test_a_bad_line_of_a_log_is_named(tmp_path):
    """File and line of what is no interval, and of a histogram that is broken."""
    path = Histogram([1]).write_hlog(tmp_path / "a.hlog")
    whole = path.read_text()
    for extra, words in (("1,2", "start,length,max"), ("1.0,2.0,3.0,xxx", "base64"), ("1..,2,3,x", "start")):
        path.write_text(whole + extra + "\n")
        with pytest.raises(FormatError, match=rf"a\.hlog, row 5: .*{words}"):
            read_hlog(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="histogram log"):
        read_hlog(path)


def test_kernels_keep_one_tally_per_histogram():
    """A tally has as many columns as the names in the kernel say."""
    assert Histogram().tally.size == TALLY == 4
