"""`python -m openai_compat.mock_upstream`: the mock upstream without the rest of the command line."""

import argparse
import sys

from openai_compat import mock_upstream

parser = argparse.ArgumentParser(prog="mock-upstream", description="A fake OpenAI server that misbehaves on demand.")
mock_upstream.add_arguments(parser)
sys.exit(mock_upstream.run(parser.parse_args()))
