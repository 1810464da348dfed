"""The house stands: imports only go down, and the kernels know nothing of what is above them."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hftlab"

FLOORS = [  # ground floor first, as in docs/ARCHITECTURE.md; a module may import what stands before it
    {"codes"},
    {"errors"},
    {"schema"},
    {"limit_keys"},
    {"limit_settings"},
    {"config"},
    {"run_folder"},
    {"side_by_side"},
    {"kernels"},
    {"clock"},
    {"histogram_files"},
    {"histogram"},
    {"tables"},
    {"limit_tables"},
    {"limits"},
    {"price_levels"},
    {"resting"},
    {"grid"},
    {"tape", "tape_file"},
    {"venue"},
    {"messages"},
    {"risk_manager"},
    {"lanes"},
    {"speculation"},
    {"runner"},
    {"inference"},
    {"feeds"},
    {"synthetic"},
    {"outputs"},
    {"positions"},
    {"result"},
    {"replayer"},
    {"book_gate"},
    {"risk_report"},
    {"risk_accounts"},
    {"risk_runs"},
    {"latencies"},
    {"latency_report"},
    {"latency_profiler"},
    {"order_book"},
    {"book_calls"},
    {"verification"},
    {"truth_files"},
    {"truth_report"},
    {"truth_states"},
    {"truth_rows", "truth_steps"},
    {"truth"},
    {"certificate_report", "certificate_page"},
    {"certificate"},
    {"inspect_flow"},
    {"plot"},
    {"benchmark"},
    {"cli"},
    {"__main__"},
]
ROOMS = set.union(*FLOORS)
KERNELS_MAY_IMPORT = {"numpy", "numba", "llvmlite"} | sys.stdlib_module_names
WITHOUT_RAW_ARRAYS = {"codes", "errors", "schema", "config", "run_folder", "feeds"} | {
    "limit_keys",
    "limit_settings",
    "limit_tables",
    "replayer",
    "risk_report",
    "risk_runs",
    "truth_files",
    "truth_report",
    "truth_states",
    "truth_rows",
    "truth_steps",
    "truth",
    "inspect_flow",
    "plot",
    "cli",
    "__main__",
}
DECODERS = {  # feeds whose bytes a kernel reads
    "feeds.itch": {"kernels.feeds.itch"},
    "feeds.lobster": {"kernels.feeds.lobster"},
    "feeds.pitch": {"kernels.feeds.pitch"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room_of(module):
    return module.split(".")[0]


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def is_module(name):
    return (PACKAGE / f"{name.replace('.', '/')}.py").is_file() or (PACKAGE / name.replace(".", "/")).is_dir()


def imports(path):
    """Every module imported anywhere in a file, in functions too, as a full name."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if is_module(inner.removeprefix("hftlab.")) else node.module


def imports_of_ours(path):
    return {name.removeprefix("hftlab.") for name in imports(path) if name.startswith("hftlab.")}


def everywhere(path):
    return pytest.param(path, id=name_of(path))


@pytest.mark.parametrize("path", [everywhere(path) for path in MODULES if name_of(path) != "__init__"])
def test_imports_only_go_down(path):
    """A module imports what stands below it in the house, or a neighbour on its own floor."""
    floor = next(i for i, rooms in enumerate(FLOORS) if room_of(name_of(path)) in rooms)
    below = set.union(*FLOORS[: floor + 1])
    assert {name for name in imports_of_ours(path) if room_of(name) not in below} == set()


def test_every_room_is_in_the_plan():
    """A new module is given its floor here and in docs/ARCHITECTURE.md."""
    assert {room_of(name_of(path)) for path in MODULES} - {"__init__"} == ROOMS
    plan = (PACKAGE.parent / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert [room for room in ROOMS if f"`{room}" not in plan] == []


@pytest.mark.parametrize("path", [everywhere(path) for path in MODULES if "kernels" in path.parts])
def test_kernels_know_only_integers(path):
    """A kernel imports numpy, numba, the codes and other kernels: no Arrow, no files, no configuration."""
    assert {room_of(name) for name in imports_of_ours(path)} <= {"codes", "kernels"}
    outside = {name.split(".")[0] for name in imports(path)} - {"hftlab"}
    assert outside <= KERNELS_MAY_IMPORT


@pytest.mark.parametrize("path", [everywhere(path) for path in MODULES])
def test_raw_arrays_stay_behind_the_door(path):
    """Rooms that deal in tables, files or people never import a kernel, but for a feed's own decoder."""
    if room_of(name_of(path)) in WITHOUT_RAW_ARRAYS:
        found = {name for name in imports_of_ours(path) if room_of(name) == "kernels"}
        assert found <= DECODERS.get(name_of(path), set())


@pytest.mark.parametrize("path", [everywhere(path) for path in MODULES])
def test_numba_s_options_have_one_place(path):
    """`njit` is named in kernels/primitives/compile.py and nowhere else."""
    names = {node.id for node in ast.walk(parse(path)) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(parse(path)) if isinstance(node, ast.Attribute)}
    names |= {alias.name for n in ast.walk(parse(path)) if isinstance(n, ast.ImportFrom) for alias in n.names}
    if names & {"njit", "jit", "vectorize", "guvectorize"}:
        assert name_of(path) == "kernels.primitives.compile"


@pytest.mark.parametrize("path", [everywhere(path) for path in MODULES if "cli" in path.parts])
def test_commands_start_fast(path):
    """No command imports a heavy library before it runs."""
    heavy = {"numba", "numpy", "polars", "pyarrow", "matplotlib"}
    at_import = [node for node in parse(path).body if isinstance(node, ast.Import | ast.ImportFrom)]
    named = {alias.name for node in at_import if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module for node in at_import if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in named} & heavy == set()
