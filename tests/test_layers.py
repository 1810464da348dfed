"""The house stands: eleven floors of rooms, imports only go down, and the kernels know only integers."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import hftlab
from hftlab.kernels import codes

PACKAGE = Path(__file__).parents[1] / "hftlab"

FLOORS = [  # ground floor first, as in docs/ARCHITECTURE.md: a room may import what is on lower floors
    {"codes", "errors", "numbers", "parallel", "process"},
    {"kernels", "config", "schema", "files"},
    {"tape", "feeds"},
    {"risk_gate"},
    {"engine"},
    {"results"},
    {"replayer"},
    {"fidelity", "scenarios", "latency"},
    {"benchmark", "plots"},
    {"cli"},
    {"__main__"},
]
KERNEL_FLOORS = [  # within kernels/
    {"primitives"},
    {"book", "feeds"},
    {"risk_gate"},
    {"matching"},
    {"engine"},
    {"results"},
]
MOST_IN_A_ROOM = 12  # modules, and entries beside the rooms at the top
LONGEST_CHAIN = 12  # rooms, each importing the next

KERNELS_MAY_IMPORT = {"numpy", "numba", "llvmlite"} | sys.stdlib_module_names
KNOW_KERNELS = {"kernels", "tape", "risk_gate", "engine", "results", "latency"}  # rooms; besides:
MODULES_THAT_KNOW_KERNELS = {
    "feeds.itch": {"kernels.feeds.itch"},  # bytes to columns
    "feeds.lobster": {"kernels.feeds.lobster"},
    "feeds.pitch": {"kernels.feeds.pitch"},
    "feeds.synthetic": {"kernels.feeds.synthetic"},
    "replayer.inference": {"kernels.book.opcodes", "kernels.results.book_states"},  # what crossed
    "replayer.book_calls": {"kernels.book.opcodes"},
    "replayer.machine": {"kernels.primitives.memory"},  # which pages it asks for
    "fidelity.certify": {"kernels.book.opcodes", "kernels.results.book_states", "kernels.results.tables"},
    "scenarios.accounts": {"kernels.results.drawdown"},
    "benchmark.tasks": {"kernels.engine.event"},  # times the kernel itself
}

MODULES = sorted(PACKAGE.rglob("*.py"))
KERNELS = sorted((PACKAGE / "kernels").rglob("*.py"))


def name_of(path):
    """`feeds.itch` of hftlab/feeds/itch.py; a room's own file has the room's name."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def room_of(module):
    return module.split(".")[0]


def kernel_room_of(module):
    """The room within kernels/, if there is one."""
    parts = module.split(".")
    return parts[1] if parts[0] == "kernels" and len(parts) > 2 else None


def floor_of(room, floors=FLOORS):
    return next((i for i, rooms in enumerate(floors) if room in rooms), None)


@cache
def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def is_module(name):
    return (PACKAGE / f"{name.replace('.', '/')}.py").is_file() or (PACKAGE / name.replace(".", "/")).is_dir()


def for_an_editor(node):
    """Whether this is `if TYPE_CHECKING:`, which nothing runs."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def nodes_that_run(tree):
    """Every node but those under `if TYPE_CHECKING`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [child for child in ast.iter_child_nodes(node) if not for_an_editor(child)]


def imports(path):
    """Every module imported anywhere in a file, in functions too, as a full name."""
    for node in nodes_that_run(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if is_module(inner.removeprefix("hftlab.")) else node.module


@cache
def imports_of_ours(path):
    return {name.removeprefix("hftlab.") for name in imports(path) if name.startswith("hftlab.")}


def everywhere(path):
    return pytest.param(path, id=name_of(path))


def chain(graph):
    """The longest way through a graph of imports; fails where it leads back to where it came from."""
    longest: dict[str, list[str]] = {}

    def walk(name, way):
        assert name not in way, "a circle: " + " -> ".join([*way[way.index(name) :], name])
        if name not in longest:
            ways = [walk(to, [*way, name]) for to in sorted(graph.get(name, ()))]
            longest[name] = [name, *max(ways, key=len, default=[])]
        return longest[name]

    return max((walk(name, []) for name in sorted(graph)), key=len)


def where_it_belongs(module, upward, floors, room):
    """The sentence for a module that imports what is above it, or beside it on its floor."""
    lowest = max(floor_of(room(name), floors) for name in upward) + 1
    rooms = ", ".join(sorted(floors[lowest])) if lowest < len(floors) else "none"
    return (
        f"hftlab/{module.replace('.', '/')}.py is on floor {floor_of(room(module), floors) + 1} "
        f"({room(module)}) and imports {', '.join(sorted(upward))}: it belongs on floor {lowest + 1} "
        f"({rooms}) or above, or what it needs of them belongs further down"
    )


@pytest.mark.parametrize("path", [everywhere(path) for path in MODULES if path.parent != PACKAGE])
def test_imports_only_go_down(path):
    """A module imports its own room and lower floors, never what is above or beside it."""
    module = name_of(path)
    floor = floor_of(room_of(module))
    assert floor is not None, (
        f"hftlab/{room_of(module)} is no room of the house: give it a floor in tests/test_layers.py and a "
        "paragraph in docs/ARCHITECTURE.md"
    )
    upward = {
        name
        for name in imports_of_ours(path)
        if room_of(name) != room_of(module) and floor_of(room_of(name)) >= floor
    }
    assert not upward, where_it_belongs(module, upward, FLOORS, room_of)


@pytest.mark.parametrize("path", [everywhere(path) for path in MODULES if kernel_room_of(name_of(path))])
def test_imports_of_kernels_only_go_down(path):
    """So do kernels between the rooms of kernels/."""
    module = name_of(path)
    room, floor = kernel_room_of(module), floor_of(kernel_room_of(module), KERNEL_FLOORS)
    assert floor is not None, f"hftlab/kernels/{room} is no room of the kernels: see KERNEL_FLOORS"
    upward = {
        name
        for name in imports_of_ours(path)
        if kernel_room_of(name) not in (room, None) and floor_of(kernel_room_of(name), KERNEL_FLOORS) >= floor
    }
    assert not upward, where_it_belongs(module, upward, KERNEL_FLOORS, kernel_room_of)


def test_no_import_leads_back():
    """No circle, imports inside of functions included; and the longest chain of rooms is as long as said."""
    graph = {name_of(path): imports_of_ours(path) for path in MODULES}
    chain({name: {to for to in found if to in graph and to != name} for name, found in graph.items()})
    rooms: dict[str, set[str]] = {}
    for name, found in graph.items():
        if name != "__init__":
            rooms.setdefault(room_of(name), set()).update(room_of(to) for to in found)
    longest = chain({room: found - {room} for room, found in rooms.items()})
    assert len(longest) <= LONGEST_CHAIN, " -> ".join(longest)


def test_every_room_is_in_the_plan():
    """A new room is given its floor here and its paragraph in docs/ARCHITECTURE.md."""
    plan = (PACKAGE.parent / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for room in set.union(*FLOORS):
        assert is_module(room), f"{room} is on a floor, and there is no hftlab/{room}"
        assert f"`{room}" in plan, f"docs/ARCHITECTURE.md has no paragraph on {room}"


def test_no_room_is_crowded():
    """A dozen modules at most in a folder, and at the top a dozen entries beside the rooms."""
    for folder in [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir())]:
        modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MOST_IN_A_ROOM, f"{folder.relative_to(PACKAGE.parent)}: {sorted(modules)}"


def test_no_room_bears_the_name_of_a_public_function():
    """Importing a room sets its name on the package, where it would take the place of the function."""
    rooms = {
        path.parent.name if path.name == "__init__.py" else path.stem
        for path in PACKAGE.glob("*/__init__.py")
    }
    rooms |= {path.stem for path in PACKAGE.glob("*.py")}
    assert rooms & set(hftlab.__all__) == {"__init__"} & set(hftlab.__all__)


@pytest.mark.parametrize("path", [everywhere(path) for path in KERNELS])
def test_kernels_know_only_integers(path):
    """A kernel imports numpy, numba, the codes and other kernels: no Arrow, no files, no configuration."""
    assert {room_of(name) for name in imports_of_ours(path)} <= {"codes", "kernels"}
    outside = {name.split(".")[0] for name in imports(path)} - {"hftlab"}
    assert outside <= KERNELS_MAY_IMPORT


@pytest.mark.parametrize("path", [everywhere(path) for path in KERNELS])
def test_codes_of_kernels_have_one_place(path):
    """Only kernels/codes.py imports enumerations; other kernels take its integers, or plain constants."""
    if name_of(path) != "kernels.codes":
        found = {
            alias.name
            for node in nodes_that_run(parse(path))
            if isinstance(node, ast.ImportFrom) and node.module == "hftlab.codes"
            for alias in node.names
        }
        assert all(name.isupper() for name in found), found


def test_codes_of_kernels_are_plain_integers():
    """numba takes a module's integers as constants, and an enumeration's members not."""
    values = {name: value for name, value in vars(codes).items() if name.isupper()}
    assert len(values) > 60
    assert {type(value) for value in values.values()} == {int}


@pytest.mark.parametrize("path", [everywhere(path) for path in MODULES])
def test_raw_arrays_stay_behind_the_door(path):
    """Who deals in tables, files or people never imports a kernel, but for those who are named above."""
    module = name_of(path)
    if room_of(module) not in KNOW_KERNELS:
        found = {name for name in imports_of_ours(path) if room_of(name) == "kernels"}
        assert found <= MODULES_THAT_KNOW_KERNELS.get(module, set())


@pytest.mark.parametrize("path", [everywhere(path) for path in MODULES])
def test_numba_s_options_have_one_place(path):
    """`njit` is named in kernels/primitives/compile.py and nowhere else."""
    names = {node.id for node in ast.walk(parse(path)) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(parse(path)) if isinstance(node, ast.Attribute)}
    names |= {alias.name for n in ast.walk(parse(path)) if isinstance(n, ast.ImportFrom) for alias in n.names}
    if names & {"njit", "jit", "vectorize", "guvectorize"}:
        assert name_of(path) == "kernels.primitives.compile"


@pytest.mark.parametrize("path", [everywhere(path) for path in MODULES if room_of(name_of(path)) == "cli"])
def test_commands_start_fast(path):
    """No command imports a heavy library before it runs."""
    heavy = {"numba", "numpy", "polars", "pyarrow", "matplotlib"}
    at_import = [node for node in parse(path).body if isinstance(node, ast.Import | ast.ImportFrom)]
    named = {alias.name for node in at_import if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module for node in at_import if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in named} & heavy == set()
