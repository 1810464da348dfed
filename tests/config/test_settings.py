"""Settings: a file, variables over it, and errors that name the key."""

import msgspec
import pytest

from hftlab.config.settings import Config, Instrument, Replay, decimal_units, load_config
from hftlab.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "cfg.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_no_file_means_the_defaults():
    """Without a file and without variables every setting has its default."""
    assert load_config(None, {}) == Config()
    assert Config().replay == Replay(threads=1, path="batch", record=("fills", "outcomes"), depth=10)


def test_a_file_sets_what_it_names(write):
    """What a file doesn't name keeps its default."""
    config = load_config(write('[replay]\nthreads = 2\nrecord = ["l1"]\nchunk_rows = 1000\n'), {})
    assert config.replay == Replay(threads=2, record=("l1",), chunk_rows=1000)


def test_an_instrument_is_its_own_section_over_the_default(write):
    """A symbol's section overrides the default section key by key; an unnamed symbol gets the default."""
    config = load_config(
        write(
            '[instruments.default]\ntick_size = "0.01"\n'
            '[instruments."CL SPREAD"]\nallow_nonpositive_prices = true\n'
            "[instruments.ES]\ntick_size = 0.25\n"
        ),
        {},
    )
    assert config.instrument("CL SPREAD") == Instrument(tick_size=10_000_000, allow_nonpositive_prices=True)
    assert config.instrument("ES") == Instrument(tick_size=250_000_000)
    assert config.instrument("AAPL") == Instrument(tick_size=10_000_000)
    assert Config().instrument("AAPL") == Instrument()


def test_a_lot_and_a_multiplier_are_text_or_numbers(write):
    """Both count 1e-9; a variable overrides the file, and what isn't given comes from the default section."""
    path = write(
        '[instruments.default]\nlot_size = "1e-8"\n[instruments.ES]\nlot_size = 1\nmultiplier = 50\n'
        "[instruments.FESX]\nmultiplier = 0.5\n"
    )
    config = load_config(path, {"HFTLAB_INSTRUMENTS__GC__MULTIPLIER": "100"})
    told = {name: (own.lot_size, own.multiplier) for name, own in config.instruments.items()}
    assert told == {
        "default": (10, None),
        "ES": (10**9, 50 * 10**9),
        "FESX": (10, 5 * 10**8),
        "GC": (10, 100 * 10**9),
    }


def test_variables_override_the_file(write):
    """An environment variable wins over the file and is converted to the setting's type."""
    path = write('[replay]\nthreads = 2\npath = "event"\n[instruments.default]\ntick_size = "0.01"\n')
    env = {
        "HFTLAB_REPLAY__THREADS": "4",
        "HFTLAB_REPLAY__RECORD": "fills, l1",
        "HFTLAB_INSTRUMENTS__DEFAULT__TICK_SIZE": "0.05",
        "HFTLAB_INSTRUMENTS__ES__ALLOW_NONPOSITIVE_PRICES": "true",
        "HFTLAB_DATA": "not a setting",
        "HOME": "/root",
    }
    config = load_config(path, env)
    assert config.replay == Replay(threads=4, path="event", record=("fills", "l1"))
    assert config.instrument("ES") == Instrument(tick_size=50_000_000, allow_nonpositive_prices=True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[replay]\nthreads = 0", "replay.threads: found 0, expected an integer, 1 or more"),
        ('[replay]\nthreads = "2"', "replay.threads: found '2', expected an integer, 1 or more"),
        ("[replay]\nthreads = 1.5", "replay.threads: found 1.5, expected an integer, 1 or more"),
        ("[replay]\nthread = 2", "replay.thread: no such key, expected one of threads, path, record"),
        ("[reply]", "reply: no such key, expected one of replay, instruments"),
        ("replay = 3", "replay: found 3, expected a table"),
        ('[replay]\npath = "fast"', "replay.path: found 'fast', expected batch or event"),
        ('[replay]\nrecord = ["fill"]', "replay.record: found ['fill'], expected a list of fills, rejects"),
        ("[replay]\nchunk_rows = 0", "replay.chunk_rows: found 0, expected an integer, 1 or more"),
        ("[replay]\ndepth = 5000", "replay.depth: found 5000, expected an integer from 1 to 1000"),
        ("instruments = 3", "instruments: found 3, expected a table"),
        ("[instruments]\ndefault = 3\nES = {tick_size = 0.25}", "instruments.default: found 3, expected a"),
        (
            "[instruments.default]\ntick_size = 1",
            "instruments.default.tick_size: found 1, expected a positive",
        ),
        ("[instruments.ES]\ntick_size = nan", "instruments.ES.tick_size: found NaN, expected a positive"),
        ('[instruments.ES]\ntick_size = "-1"', "instruments.ES.tick_size: found '-1', expected a positive"),
        (
            '[instruments."A B"]\ntick_size = "1e-10"',
            "instruments.\"A B\".tick_size: found '1e-10', expected",
        ),
        ('[instruments.ES]\nlot_size = "0"', "instruments.ES.lot_size: found '0', expected a positive"),
        ("[instruments.ES]\nlot_size = true", "instruments.ES.lot_size: found True, expected a positive"),
        ("[instruments.ES]\nmultiplier = -50", "instruments.ES.multiplier: found -50, expected a positive"),
        ("[instruments.ES]\nmultiplier = inf", "instruments.ES.multiplier: found Infinity, expected a pos"),
        (
            '[instruments.default]\nlot_size = "1e-9"\n[instruments.ES]\nmultiplier = 0.5',
            "instruments.ES.multiplier: found 0.5 x a lot_size of 1e-9, expected a product of at most nine",
        ),
        ("[instruments.ES]\ntick = 1", "instruments.ES.tick: no such key, expected one of tick_size"),
        ("threads =", "not valid TOML: Invalid value"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_key(write, text, problem):
    """Whatever is wrong in a file, the error names the file, the key's path, what was found and expected."""
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    assert str(caught.value).startswith(str(path))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("HFTLAB_REPLAY__THREADS", "two", "found 'two', expected an integer, 1 or more"),
        ("HFTLAB_REPLAY__RECORD", "fills,l9", "found 'fills,l9', expected a list of fills, rejects"),
        ("HFTLAB_REPLAY__SPEED", "2", "no such setting, expected one of HFTLAB_REPLAY__THREADS"),
        ("HFTLAB_ENGINE__THREADS", "2", "no such setting, expected one of HFTLAB_REPLAY__THREADS"),
        ("HFTLAB_INSTRUMENTS__ES__TICK_SIZE", "wide", "found 'wide', expected a positive decimal"),
    ],
)
def test_a_wrong_variable_is_named(name, value, problem):
    """A variable that is unknown or doesn't convert is an error naming the variable."""
    with pytest.raises(ConfigError, match=name) as caught:
        load_config(None, {name: value})
    assert problem in str(caught.value)


def test_a_file_that_can_t_be_read_is_named(tmp_path):
    """A missing file, a folder and a file that isn't text are errors naming the path."""
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, found in [
        (tmp_path / "nowhere.toml", "no such file or directory"),
        (tmp_path, "is a directory"),
        (binary, "not UTF-8"),
    ]:
        with pytest.raises(ConfigError, match=found) as caught:
            load_config(path, {})
        assert str(path) in str(caught.value)


def test_settings_are_frozen():
    """A setting can't be changed after it was checked."""
    with pytest.raises(AttributeError):
        Config().replay.threads = 2
    assert msgspec.to_builtins(Config())["replay"]["threads"] == 1


def test_decimals_become_whole_units():
    """A decimal of at most nine places is an exact integer of 1e-9; anything else is refused."""
    assert decimal_units("0.01") == 10_000_000
    assert decimal_units("-37.63") == -37_630_000_000
    assert decimal_units("1e-9") == 1
    for bad in ("0.0000000001", "nan", "inf", "ten", ""):
        with pytest.raises(ValueError, match="expected a number of at most nine decimals"):
            decimal_units(bad)
