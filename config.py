"""Settings of the server for other programs in this directory.

import config
settings = config.load()
"""

from openai_compat.config.environment import load, read_environment
from openai_compat.config.settings_table import SETTINGS, Setting

__all__ = ["SETTINGS", "Setting", "load", "read_environment"]
