"""Entry point of `python -m openai_compat`."""

import sys

from .cli import main

sys.exit(main())
