"""The public names: pinned, reachable, known to an editor, and quick to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hftlab

PUBLIC = {
    "Ack",
    "Action",
    "Config",
    "ConfigError",
    "Fill",
    "Flow",
    "FormatError",
    "HftlabError",
    "Histogram",
    "InputError",
    "Limits",
    "LatencyProfiler",
    "LimitsError",
    "MboAction",
    "OrderBook",
    "OrderType",
    "OutputError",
    "MeasurementError",
    "PRICE_SCALE",
    "Profile",
    "Reason",
    "Result",
    "RiskControl",
    "Side",
    "Stage",
    "Status",
    "TableError",
    "Tape",
    "Tif",
    "UNDEF_PRICE",
    "UsageError",
    "Verification",
    "Certificate",
    "certify",
    "Comparison",
    "compare",
    "RiskReport",
    "risk",
    "which_limit_first",
    "__version__",
    "compile_tape",
    "generate",
    "infer_orders",
    "load_config",
    "open_flow",
    "profile",
    "replay",
    "to_wide",
    "verify",
}
HEAVY = ("numba", "pyarrow", "polars", "numpy", "matplotlib", "typer", "rich", "msgspec")
PROFILER = "hftlab.kernels.engine.profiled"


def test_public_names_are_pinned():
    """A name is added to or taken from the package on purpose, here and in the changelog."""
    assert set(hftlab.__all__) == PUBLIC
    assert len(hftlab.__all__) == len(PUBLIC)
    assert set(dir(hftlab)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_resolves(name):
    """Each name is there when it is asked for, and the same thing when asked again."""
    assert getattr(hftlab, name) is getattr(hftlab, name)


def test_an_unknown_name_is_an_attribute_error():
    """A misspelt name fails as in any module."""
    with pytest.raises(AttributeError, match="has no attribute 'replya'"):
        hftlab.replya  # noqa: B018


def imports_for_an_editor():
    """What stands under `if TYPE_CHECKING`: (public name, the name there, the module) of each import."""
    tree = ast.parse(Path(hftlab.__file__).read_text(encoding="utf-8"))
    (block,) = [
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    return [(alias.asname, alias.name, node.module) for node in block.body for alias in node.names]


def test_an_editor_knows_the_names_that_are_loaded_late():
    """Each name is imported for an editor from the module that it is loaded from, under its own name."""
    loaded_late = [(name, name, f"hftlab.{module}") for name, module in hftlab._EXPORTS.items()]
    assert sorted(imports_for_an_editor()) == sorted(loaded_late)


def test_the_package_says_that_it_is_typed():
    """Without py.typed a checker ignores every annotation of an installed package."""
    assert Path(hftlab.__file__).with_name("py.typed").is_file()


def loaded_after(statement):
    """Which heavy libraries a fresh interpreter has after a statement."""
    program = (
        f"import sys; {statement}; print(*[name for name in {(*HEAVY, PROFILER)!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    """`import hftlab` costs nothing until a name is used."""
    assert loaded_after("import hftlab") == set()


def test_importing_the_command_line_loads_only_what_parses_it():
    """`hftlab --help` waits for typer alone."""
    assert loaded_after("import hftlab.cli") <= {"typer", "rich", "msgspec"}


def test_nothing_that_replays_loads_the_profiler():
    """Kernels with a clock in them are compiled for those who measure."""
    assert PROFILER not in loaded_after("import hftlab; hftlab.replay, hftlab.OrderBook, hftlab.verify")
    assert PROFILER in loaded_after("import hftlab; hftlab.profile")


def test_nothing_that_replays_loads_matplotlib():
    """Pictures are paid for by those who draw."""
    assert "matplotlib" not in loaded_after(
        "import hftlab; [getattr(hftlab, name) for name in hftlab.__all__]"
    )
