"""A tape in a file is not believed: what is damaged is refused, or does no harm."""

import random
from dataclasses import replace

import numpy as np
import pytest

import hftlab
from hftlab.errors import FormatError
from hftlab.kernels.book import opcodes
from hftlab.tape import tape as tape_files
from hftlab.tape.bounds import first_fault
from tests.helpers import flows

FLIPS = 400  # a flip takes a millisecond or two


def compiled(name="replaces", size=400, parts=1):
    """A tape of a random flow, of several instruments."""
    return hftlab.compile_tape(flows.make(name, size, seed=14).table(), parts=parts)


@pytest.fixture(scope="module")
def tape():
    return compiled()


@pytest.fixture
def file(tape, tmp_path):
    tape.save(tmp_path / "flow.tape")
    return tmp_path / "flow.tape"


def loaded_or_refused(path):
    """The tape of a file, None where it is refused as it should be: in one line that names the file."""
    try:
        return hftlab.Tape.load(path)
    except FormatError as error:
        if str(path) in str(error) and "\n" not in str(error):
            return None
        raise


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bits", [1, 8])
def test_a_flipped_byte_is_refused_or_means_nothing(tape, file, seed, bits):
    """Anywhere in the file: an error, or the digest of before. None of it crashes."""
    whole, expected, rng = file.read_bytes(), hftlab.replay(tape).digest, random.Random(seed)
    refused = 0
    for _ in range(FLIPS // 8):
        data, place = bytearray(whole), rng.randrange(len(whole))
        data[place] ^= 1 << rng.randrange(8) if bits == 1 else rng.randrange(1, 256)
        file.write_bytes(data)
        found = loaded_or_refused(file)
        refused += found is None
        assert found is None or hftlab.replay(found).digest == expected, f"seed {seed}, byte {place}"
    assert refused > FLIPS // 16


@pytest.mark.parametrize("seed", range(2))
def test_zeroed_and_repeated_blocks_are_refused_or_mean_nothing(tape, file, seed):
    """As a disk leaves them: a block of zeros, or of another place."""
    whole, expected, rng = file.read_bytes(), hftlab.replay(tape).digest, random.Random(seed)
    for _ in range(60):
        data, place, other = bytearray(whole), rng.randrange(len(whole)), rng.randrange(len(whole))
        size = min(rng.choice((16, 64, 512)), len(whole) - max(place, other))
        data[place : place + size] = bytes(size) if rng.random() < 0.5 else whole[other : other + size]
        file.write_bytes(data)
        found = loaded_or_refused(file)
        assert found is None or hftlab.replay(found).digest == expected, f"seed {seed}, byte {place}"


def test_every_byte_of_the_description_counts(tape, file):
    """The name of an instrument is in no array: its letters are in the digest, and have a checksum.

    The description stands at both ends of the file; Arrow reads the one at the end.
    """
    whole = file.read_bytes()
    place = whole.rindex(b'"symbols": ["') + len(b'"symbols": ["')
    file.write_bytes(whole[:place] + b"#" + whole[place + 1 :])
    with pytest.raises(FormatError, match="a changed description"):
        hftlab.Tape.load(file)


def test_a_changed_byte_is_noticed_without_being_asked(tape, file):
    """By `load` and by a replay of the path; `verify=False` is for whoever has just looked."""
    data = bytearray(file.read_bytes())
    data[data.find(tape.checked.columns.price.tobytes())] ^= 1
    file.write_bytes(data)
    for read in (hftlab.Tape.load, hftlab.replay):
        with pytest.raises(FormatError, match=r"changed bytes in columns\.price"):
            read(file)
    hftlab.Tape.load(file, verify=False)


def test_a_tape_of_before_is_read(tape, file, monkeypatch):
    """Files without a checksum of their description are of the same format."""
    monkeypatch.setattr(tape_files, "_checksum", lambda facts: None)
    tape.save(file)
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b', "crc32": null}', b"}               "))
    monkeypatch.undo()
    assert hftlab.replay(hftlab.Tape.load(file)).digest == hftlab.replay(tape).digest


# ------------------------------------------------------------------ every index, with checksums to match


def with_array(tape, name, change):
    """The tape with one array changed."""
    group, field = name.split(".")
    arrays = tape_files._arrays(tape)
    array = arrays[f"{group}.{field}"].copy()
    changed = change(array)
    arrays[name] = array if changed is None else changed
    return tape_files._tape(tape_files._facts(tape), arrays)


def put(value, field=None, at=-1):
    """A change: one cell, by default the last, gets a value."""

    def change(array):
        if field is None:
            array[at] = value
        else:
            array[field][at] = value

    return change


FAR = 2**31 - 1
INDICES = [
    ("commands.rows", put(FAR, "slot")),
    ("commands.rows", put(-1, "slot")),
    ("commands.rows", put(-(2**31), "slot")),
    ("commands.rows", put(0, "slot")),
    ("commands.rows", lambda rows: rows["level"].__setitem__(slice(None), FAR)),
    ("commands.rows", lambda rows: rows["level"].__setitem__(slice(None), -1)),
    ("commands.rows", put(FAR, "op")),
    ("commands.rows", put(-1, "op")),
    ("commands.rows", lambda rows: rows["qty"].__setitem__(slice(None), -1)),
    ("commands.rows", lambda rows: rows["op"].__setitem__(slice(None), opcodes.ADD << opcodes.KIND_SHIFT)),
    ("commands.rows", lambda rows: rows[:-1].copy()),
    ("commands.targets", put(FAR)),
    ("commands.targets", put(0)),
    ("commands.accounts", lambda array: np.zeros(3, "i4")),
    ("grid.sizes", put(2**40)),
    ("grid.sizes", put(0)),
    ("grid.sizes", put(63)),
    ("grid.bases", put(FAR)),
    ("grid.starts", put(FAR)),
    ("grid.numbers", lambda array: array[:-1].copy()),
    ("grid.rules", put(0, "tick")),
    ("grid.pages", lambda pages: pages["value"].__setitem__(slice(None), 1)),
    ("grid.pages", put(FAR, "value")),
    ("grid.pages", lambda pages: pages[:-1].copy()),
    ("columns.action", put(99)),
    ("columns.side", put(5)),
    ("columns.order_type", put(-1)),
    ("columns.tif", put(9)),
    ("columns.book", put(FAR)),
    ("columns.book", put(-1)),
    ("columns.book", lambda array: array[:0].copy()),
    ("columns.price", lambda array: array[:-1].copy()),
    ("columns.order_id", lambda array: array[:0].copy()),
    ("tape.parts", put(FAR)),
    ("tape.parts", put(5, at=0)),
    ("tape.ts", lambda array: array[:-1].copy()),
    ("invalid.rows", lambda array: np.array([FAR])),
    ("tape.opening_levels", lambda array: np.zeros(1, "i4")),
]


@pytest.mark.parametrize(
    ("name", "change"), INDICES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_index_that_points_nowhere_is_refused(tape, tmp_path, name, change):
    """Although its checksum is right: what wrote the file was wrong, or means harm."""
    damaged = with_array(tape, name, change)
    assert first_fault(damaged) is not None
    damaged.save(tmp_path / "damaged.tape")
    with pytest.raises(FormatError, match=r"damaged\.tape: found .*, expected a tape as it was saved"):
        hftlab.Tape.load(tmp_path / "damaged.tape")


@pytest.mark.parametrize(
    "counts", [{"slots": 2**40}, {"slots": -1}, {"incoming": 0}, {"incoming": 2**40}, {"has_accounts": False}]
)
def test_counts_that_are_wrong_are_refused(tape, tmp_path, counts):
    """They say how much memory a run takes, and kernels don't look where it ends."""
    replace(tape, **counts).save(tmp_path / "damaged.tape")
    with pytest.raises(FormatError):
        hftlab.Tape.load(tmp_path / "damaged.tape")


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("name", list(flows.FLOWS))
def test_what_was_compiled_is_sound(name, parts):
    """Every kind of flow, of one part and of several."""
    assert first_fault(compiled(name, 600, parts)) is None


def test_order_of_several_parts_points_to_rows():
    """Only a tape of parts has an order."""
    tape = compiled("ordinary", 600, parts=2)
    if tape.commands.order.size:
        assert first_fault(with_array(tape, "commands.order", put(FAR))) is not None
        assert first_fault(with_array(tape, "commands.order", put(-1))) is not None


def test_a_tape_is_mapped_and_nothing_of_it_copied(tape, file):
    """Each array is a view of one and the same map."""
    arrays = [array for array in tape_files._arrays(hftlab.Tape.load(file)).values() if array.size]
    places = [array.__array_interface__["data"][0] for array in arrays]
    assert max(places) - min(places) < file.stat().st_size
