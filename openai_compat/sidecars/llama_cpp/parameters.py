"""Parameters of llama.cpp's server for one model."""

from __future__ import annotations

from typing import Any, Final

import xllamacpp

from openai_compat.core.cpu_limit import find_cpu_limit

from .launch import LaunchConfig

ERRORS: Final = 1
"""llama.cpp's level of log lines about errors alone."""
PROMPT_BATCH: Final = 128
"""Prompt tokens that a CPU processes at once. Other calls wait meanwhile, and a cancelled call goes on.

llama.cpp's default of 2,048 takes seconds (docs/internals/performance.md).
"""


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
    elif config.mmproj is None and not _has_gpu(config):  # some models need an image in one batch
        parameters.n_batch = PROMPT_BATCH
    if (threads := config.threads or find_cpu_limit()) is not None:  # llama.cpp's default are the machine's cores
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    if config.gpu_layers is not None:
        parameters.n_gpu_layers = config.gpu_layers


def _has_gpu(config: LaunchConfig) -> bool:
    types = xllamacpp.ggml_backend_dev_type
    gpus = (types.GGML_BACKEND_DEVICE_TYPE_GPU, types.GGML_BACKEND_DEVICE_TYPE_IGPU)
    return config.gpu_layers != 0 and any(device["type"] in gpus for device in xllamacpp.get_device_info())


def _set_defaults_of_calls(parameters: Any, config: LaunchConfig) -> None:
    parameters.n_predict = config.max_tokens
    if config.temperature is not None:
        parameters.sampling.temp = config.temperature
    if config.top_p is not None:
        parameters.sampling.top_p = config.top_p
