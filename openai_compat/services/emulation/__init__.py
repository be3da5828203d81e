"""Emulation of tools and structured output for models whose API has neither, by the prompt and the parsed answer."""
