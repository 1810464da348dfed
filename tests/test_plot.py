"""The picture is drawn from whatever of a run there is."""

import random
from pathlib import Path

import polars as pl
import pytest

import hftlab
from hftlab.errors import FormatError, HftlabError, InputError, UsageError
from hftlab.plot import plot_folder, plot_run

SAMPLE = Path(__file__).parents[1] / "data" / "sample.parquet"


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
    for where in (100, *(chance.randrange(len(whole)) for _ in range(40))):
        path.write_bytes(
            whole[:where] + bytes([whole[where] ^ 1 << chance.randrange(8)]) + whole[where + 1 :]
        )
        said = None
        try:
            plot_folder(tmp_path / "run")
        except HftlabError as error:
            said = str(error)
        assert "\n" not in (said or "")
        assert said or where > 100, "a page that doesn't fit its sum was drawn"
