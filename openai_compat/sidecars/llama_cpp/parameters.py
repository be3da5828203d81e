"""Parameters of llama.cpp's server for one model."""

from __future__ import annotations

from typing import Any, Final

import xllamacpp

from .launch import LaunchConfig

ERRORS: Final = 1
"""llama.cpp's level of log lines about errors alone."""


def start_server(config: LaunchConfig) -> Any:
    """Load the model and return llama.cpp's server, which listens on the socket from then on.

    Raises:
        RuntimeError: the model cannot be loaded.
    """
    return xllamacpp.Server(to_parameters(config))


def to_parameters(config: LaunchConfig) -> Any:
    """Return llama.cpp's own parameters."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = config.file
    parameters.model_alias = {config.name}
    parameters.verbosity = ERRORS
    _set_endpoints(parameters, config)
    _set_sizes(parameters, config)
    _set_defaults_of_calls(parameters, config)
    return parameters


def _set_endpoints(parameters: Any, config: LaunchConfig) -> None:
    parameters.hostnames = [config.socket]  # a name that ends with .sock is a Unix socket
    parameters.n_threads_http = config.connections
    parameters.ui = False
    parameters.endpoint_slots = False  # it shows the prompts of other callers
    parameters.embedding = config.is_embedding
    if config.pooling is not None:
        parameters.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{config.pooling.upper()}")
    if config.mmproj is not None:
        parameters.mmproj.path = config.mmproj
    if config.chat_template is not None:
        parameters.chat_template = config.chat_template


def _set_sizes(parameters: Any, config: LaunchConfig) -> None:
    parameters.n_parallel = config.slots
    parameters.n_ctx = config.slots * config.window
    parameters.cache_ram_mib = 0  # no second cache of prompts, whose size LOCAL_MEMORY_BYTES could not limit
    if config.is_embedding:
        parameters.n_batch = parameters.n_ubatch = config.window  # an input is embedded in one batch
    if config.threads is not None:
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = config.threads
    if config.gpu_layers is not None:
        parameters.n_gpu_layers = config.gpu_layers


def _set_defaults_of_calls(parameters: Any, config: LaunchConfig) -> None:
    parameters.n_predict = config.max_tokens
    if config.temperature is not None:
        parameters.sampling.temp = config.temperature
    if config.top_p is not None:
        parameters.sampling.top_p = config.top_p
