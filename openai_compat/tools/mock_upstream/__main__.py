"""`python -m openai_compat.tools.mock_upstream`: the mock upstream without the rest of the command line."""

import argparse
import sys

from . import add_arguments, run

parser = argparse.ArgumentParser(prog="mock-upstream", description="A fake OpenAI server that misbehaves on demand.")
add_arguments(parser)
sys.exit(run(parser.parse_args()))
