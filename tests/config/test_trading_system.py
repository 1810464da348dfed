"""The configuration of the system that is re-created here: it loads as written, in that system's units."""

from decimal import Decimal

import pytest

from hftlab.config.settings import Monitoring, Performance, load_config
from hftlab.errors import ConfigError, LimitsError
from hftlab.risk_gate.limits import Limits

AS_WRITTEN = """
[trading]
max_orders_per_second = 100000
max_position_size = 1000000
max_portfolio_value = 10000000.0
stop_loss_percentage = 0.02
[performance]
use_hugepages = true
cpu_affinity = [0, 1, 2, 3]
numa_node = 0
allocator = "mimalloc"
[monitoring]
metrics_enabled = true
latency_profiling = true
export_format = "prometheus"
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "system.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_its_file_loads_as_written(write):
    """Every section and key of the system's own file is known and typed."""
    config = load_config(write(AS_WRITTEN), {})
    assert config.performance == Performance(
        use_hugepages=True, cpu_affinity=(0, 1, 2, 3), numa_node=0, allocator="mimalloc"
    )
    assert config.monitoring == Monitoring(
        metrics_enabled=True, latency_profiling=True, export_format="prometheus"
    )
    assert config.trading["stop_loss_percentage"] == Decimal("0.02")


def test_its_limits_have_its_units(write):
    """In [trading] 0.02 is two percent, a portfolio value is currency, a position is lots on both sides."""
    trading = Limits.load(write(AS_WRITTEN))
    ours = Limits.from_settings(
        {
            "max_orders_per_second": 100_000,
            "max_position_size": 1_000_000,
            "max_portfolio_value": "10000000",
            "stop_loss_percentage": 2,
        }
    )
    accounts = [1, 7]
    assert trading.account_limits(accounts).tolist() == ours.account_limits(accounts).tolist()
    assert trading.account_limits([7])["stop_ppm"] == [20_000]
    assert trading.account_limits([7])["portfolio"] == [10_000_000 * 10**9]
    assert trading.of_all_text() == ours.of_all_text()
    assert trading.of_all_text()["stop_loss_percentage"] == "2 %"
    assert trading.closes_gate


def test_an_integer_portfolio_value_is_currency(write):
    """The system's money has no unit but the currency, so that ten million may be written without a point."""
    limits = Limits.load(write("[trading]\nmax_portfolio_value = 10000000\n"))
    assert limits.account_limits([1])["portfolio"] == [10_000_000 * 10**9]


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("1", "write 1 % as 0.01 here, or as 1 in [risk]"),
        ("2", "write 2 % as 0.02 here, or as 2 in [risk]"),
        ("2.5", "write 2.5 % as 0.025 here, or as 2.5 in [risk]"),
        ('"15"', "write 15 % as 0.15 here, or as 15 in [risk]"),
        ("100", "such as 0.02 for 2 %"),
    ],
)
def test_a_fraction_of_one_or_more_says_how_to_write_it(write, value, hint):
    """A percentage in [trading] is refused with the fraction that was probably meant."""
    with pytest.raises(LimitsError) as caught:
        load_config(write(f"[trading]\nstop_loss_percentage = {value}\n"), {})
    assert "expected a fraction below 1" in str(caught.value)
    assert str(caught.value).endswith(hint)


@pytest.mark.parametrize("value", ["-0.02", "nan", "true", "0.0000001", '"two"'])
def test_other_stop_losses_are_refused(write, value):
    """What is no fraction of at most six decimals is an error by name."""
    with pytest.raises(LimitsError, match=r"trading\.stop_loss_percentage: found .*a fraction below 1"):
        load_config(write(f"[trading]\nstop_loss_percentage = {value}\n"), {})


@pytest.mark.parametrize(
    ("risk", "key"),
    [
        ("[risk]\nstop_loss_percentage = 2", "stop_loss_percentage"),
        ("[risk.accounts.7]\nstop_loss_percentage = 2", "stop_loss_percentage"),
        ("[[risk.changes]]\nfrom_row = 5\nstop_loss_percentage = 2", "stop_loss_percentage"),
        ("[risk]\nmax_position_size = 5", "max_position_size"),
        ("[risk]\nmax_long_position = 5", "max_position_size"),
        ("[risk]\nmax_orders_per_second = 5", "max_orders_per_second"),
        ("[risk]\nmax_portfolio_value = 5.0", "max_portfolio_value"),
    ],
)
def test_a_limit_in_both_sections_is_an_error(write, risk, key):
    """One account has a limit from one section only; a stop loss in both would have two units."""
    with pytest.raises(LimitsError, match=rf"trading\.{key}: found it in \[risk.*\], too"):
        load_config(write(f"{AS_WRITTEN}{risk}\n"), {})


def test_an_account_s_own_limit_goes_before_the_one_for_all(write):
    """Limits with one unit in both sections are looked up as ever: an account's own first."""
    limits = Limits.load(write(f"{AS_WRITTEN}[risk.accounts.7]\nmax_orders_per_second = 5\n"))
    assert limits.account_limits([7, 8])["rate"].tolist() == [5, 100_000]


def test_the_short_variables_go_over_the_file(write):
    """HFT_ variables override the file, and HFTLAB_ ones override them; an empty one is as none."""
    short = {
        "HFT_LOG_LEVEL": "warn",
        "HFT_CPU_AFFINITY": "0-2,5",
        "HFT_NUMA_NODE": "1",
        "HFT_HUGEPAGES": "0",
        "HFT_OTHER": "not a setting",
    }
    config = load_config(write(AS_WRITTEN), short)
    assert config.performance == Performance(
        use_hugepages=False, cpu_affinity=(0, 1, 2, 5), numa_node=1, allocator="mimalloc"
    )
    assert config.monitoring.log_level == "WARNING"
    both = {**short, "HFTLAB_PERFORMANCE__CPU_AFFINITY": "3", "HFT_NUMA_NODE": ""}
    assert load_config(write(AS_WRITTEN), both).performance.cpu_affinity == (3,)
    assert load_config(write(AS_WRITTEN), both).performance.numa_node == 0
    assert load_config(None, {"HFTLAB_TRADING__STOP_LOSS_PERCENTAGE": "0.02"}).trading


def test_everything_wrong_in_a_file_comes_at_once(write):
    """Unknown keys and bad values of every section are one error with the file and each key."""
    path = write(
        "[replay]\nthreads = 0\nspeed = 2\n"
        "[performance]\nuse_hugepages = 1\ncpu_affinity = [-1]\nnuma_node = true\nallocator = 'tcmalloc'\n"
        "cores = 2\n[monitoring]\nexport_format = 'json'\nlog_level = 'loud'\n"
        "[risk]\nmax_order_qty = -1\n[instruments.ES]\ntick_size = 1\ntick = 2\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    text = str(caught.value)
    assert text.startswith(f"{path}: 12 problems: ")
    assert "\n" not in text
    for problem in (
        "replay.threads: found 0",
        "replay.speed: no such key",
        "performance.use_hugepages: found 1, expected true or false",
        "performance.cpu_affinity: found [-1], expected a list of cores",
        "performance.numa_node: found True, expected a NUMA node",
        "performance.allocator: found 'tcmalloc', expected mimalloc, jemalloc or system",
        "performance.cores: no such key, expected one of use_hugepages, cpu_affinity",
        "monitoring.export_format: found 'json', expected prometheus",
        "monitoring.log_level: found 'loud', expected TRACE",
        "risk.max_order_qty: found -1",
        "instruments.ES.tick_size: found 1",
        "instruments.ES.tick: no such key",
    ):
        assert problem in text


def test_everything_wrong_in_variables_comes_at_once():
    """Each bad variable is named, all in one error."""
    env = {"HFT_CPU_AFFINITY": "3-1", "HFT_NUMA_NODE": "x", "HFT_HUGEPAGES": "maybe", "HFT_LOG_LEVEL": "loud"}
    with pytest.raises(ConfigError, match="environment: 4 problems") as caught:
        load_config(None, env)
    assert all(f"{name}: found {value!r}" in str(caught.value) for name, value in env.items())
