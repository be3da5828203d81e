"""Command line of the mock upstream alone, `python -m openai_compat.tools.mock_upstream`."""

import argparse
import sys

from . import add_arguments, run

parser = argparse.ArgumentParser(prog="mock-upstream", description="Mock of the APIs of OpenAI and Anthropic.")
add_arguments(parser)
sys.exit(run(parser.parse_args()))
