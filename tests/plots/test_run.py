"""The picture is drawn from whatever of a run there is."""

import random

import polars as pl
import pyarrow.parquet as pq
import pytest

import hftlab
from hftlab.errors import FormatError, HftlabError, InputError, UsageError
from hftlab.plots.run import plot_folder, plot_run
from tests.conftest import REPOSITORY

SAMPLE = REPOSITORY / "data" / "sample.parquet"


@pytest.fixture(scope="module")
def frames():
    run = hftlab.replay(SAMPLE, record=("fills", "l1", "book"))
    return {"fills": run.fills, "l1": run.l1, "book": run.book}


@pytest.mark.parametrize("names", [("fills", "l1", "book"), ("fills",), ("l1",), ("book",), ("l1", "book")])
def test_any_part_of_a_run_makes_a_picture(frames, names, tmp_path):
    """Fills, best prices and the book each have their place, and none of them is needed."""
    figure = plot_run(**{name: frames[name] for name in names})
    assert len(figure.axes) == 2 + ("book" in names)
    figure.savefig(tmp_path / "run.png")


def test_fills_of_one_side_only(frames):
    """Which one doesn't matter."""
    for side in (1, -1):
        plot_run(fills=frames["fills"].filter(pl.col("aggressor_side") == side).head(1))


def test_the_busiest_instrument_is_drawn_unless_one_is_named(frames):
    """Without a symbol the picture is of the one with most fills."""
    assert plot_run(**frames).axes[0].get_title(loc="left") == "SYM000"
    assert plot_run(**frames, symbol="SYM003").axes[0].get_title(loc="left") == "SYM003"


def test_nothing_to_draw_is_said(frames, tmp_path):
    """No frames, an unknown symbol and a folder that isn't a run are errors of one line."""
    with pytest.raises(UsageError, match="found nothing to plot"):
        plot_run(fills=frames["fills"].clear())
    with pytest.raises(UsageError, match="found no rows of 'NONE'"):
        plot_run(**frames, symbol="NONE")
    with pytest.raises(InputError, match="expected a run folder"):
        plot_folder(tmp_path)


def test_a_damaged_run_folder_is_one_line(tmp_path):
    """Pages are checked against their sums, so that no damage reaches what would end the process."""
    hftlab.replay(SAMPLE, record=("fills",), out=tmp_path / "run")
    path = tmp_path / "run" / "fills.parquet"
    whole, chance = path.read_bytes(), random.Random(1)
    for damaged in (b"PAR1", whole[:-1], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(
            FormatError, match=r"fills\.parquet: found broken Parquet data .*, expected a whole"
        ):
            plot_folder(tmp_path / "run")
    path.write_bytes(whole)
    columns = pq.ParquetFile(path).metadata.row_group(0)
    drawn = next(column for column in map(columns.column, range(99)) if column.path_in_schema == "price")
    page = drawn.data_page_offset + drawn.total_compressed_size // 2
    for where in (page, *(chance.randrange(len(whole)) for _ in range(40))):
        path.write_bytes(
            whole[:where] + bytes([whole[where] ^ 1 << chance.randrange(8)]) + whole[where + 1 :]
        )
        said = None
        try:
            plot_folder(tmp_path / "run")
        except HftlabError as error:
            said = str(error)
        assert "\n" not in (said or "")
        assert said or where != page, "a page that doesn't fit its sum was drawn"


def test_a_table_of_other_columns_is_one_line(tmp_path):
    """What replay didn't write is not drawn."""
    hftlab.replay(SAMPLE, record=("book",), out=tmp_path / "run")
    path = tmp_path / "run" / "book.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns("side"), path)
    with pytest.raises(FormatError, match=r"found no column side, expected one of int8, as hftlab writes it"):
        plot_folder(tmp_path / "run")
    pq.write_table(table.set_column(1, "side", table["side"].cast("int64")), path)
    with pytest.raises(FormatError, match="found column side of int64, expected one of int8"):
        plot_folder(tmp_path / "run")
