"""Settings and limits as people write them: TOML, the environment, keys of the risk gate."""

from hftlab.config.settings import Config, Instrument, Replay, load_config

__all__ = ["Config", "Instrument", "Replay", "load_config"]
