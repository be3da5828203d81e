"""Mapping of a conversation to a pipeline's inputs, and of the pipeline's outputs to an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .errors import PipelineMismatchError
from .generator import GroundedChatGenerator

Sockets = Mapping[str, Mapping[str, Any]]
"""Haystack's description of inputs or outputs, by component and socket."""
INPUT_NAMES: Final[Mapping[str, frozenset[str]]] = {
    "messages": frozenset({"messages"}),
    "query": frozenset({"query", "question", "text", "prompt"}),
    "history": frozenset({"history", "chat_history", "memories"}),
    "parameters": frozenset({"generation_kwargs"}),
}
"""The values of a request, and the names of the sockets that take them unless the model config names others.

`messages` is the complete conversation, `query` the text of the last user message, `history` the conversation before
that message, and `parameters` the generation parameters as a dict.
"""
OUTPUT_NAMES: Final = ("replies", "answers", "last_message", "documents")
"""Names of the outputs that can be the answer, in the order of preference."""


class Socket(NamedTuple):
    """An input or an output of a component."""

    component: str
    socket: str

    def __str__(self) -> str:
        return f"{self.component}.{self.socket}"


@dataclass(frozen=True, slots=True)
class IOMapping:
    """The sockets through which a request enters a pipeline and its answer leaves.

    `inputs` has the input sockets of each value of a request. `documents` is the output with the documents on which the
    answer is based. `stream_from` is the component whose chunks are streamed to the client.
    """

    inputs: Mapping[str, Sequence[Socket]]
    answer: Socket
    documents: Socket | None
    stream_from: str | None

    @property
    def outputs_from(self) -> set[str]:
        """The components whose outputs are needed."""
        return {self.answer.component} | ({self.documents.component} if self.documents else set())

    def to_inputs(self, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the argument of `Pipeline.run` for some of the values of a request."""
        inputs: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            for socket in self.inputs[name]:
                inputs.setdefault(socket.component, {})[socket.socket] = value
        return inputs


def map_pipeline(
    pipeline: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any], stream_from: str | None
) -> IOMapping:
    """Return the mapping that the model config gives, completed with guesses by the sockets' names.

    Raises:
        PipelineMismatchError: a socket does not exist, a mandatory input has no value, or no output can be the answer.
    """
    open_inputs = pipeline.inputs()
    all_outputs = pipeline.outputs(include_components_with_connected_outputs=True)
    unknown = [name for name in inputs if name not in INPUT_NAMES]
    unknown += [name for name in outputs if name not in {"answer", "documents"}]
    if unknown:
        raise PipelineMismatchError(f"'{unknown[0]}' is neither one of {', '.join(INPUT_NAMES)} nor answer, documents")
    sockets = {
        name: _parse(inputs[name], open_inputs, "input") if name in inputs else list(_guess(socket_names, open_inputs))
        for name, socket_names in INPUT_NAMES.items()
    }
    _check_mandatory(open_inputs, {socket for listed in sockets.values() for socket in listed})
    streaming = stream_from or _guess_streaming_component(pipeline, open_inputs)
    if streaming is not None and "streaming_callback" not in open_inputs.get(streaming, {}):
        raise PipelineMismatchError(f"stream_from: '{streaming}' has no input `streaming_callback`")
    named = {name: _parse(path, all_outputs, "output")[0] for name, path in outputs.items()}
    answer = named.get("answer") or _guess_answer(pipeline, streaming, all_outputs)
    return IOMapping(sockets, answer, named.get("documents") or _guess_documents(pipeline), streaming)


def _parse(value: Any, known: Sockets, direction: str) -> list[Socket]:
    sockets = [Socket(*path.split(".", 1)) for path in (value if isinstance(value, list) else [value])]
    for socket in sockets:
        if socket.socket not in known.get(socket.component, {}):
            listed = ", ".join(str(Socket(component, name)) for component, names in known.items() for name in names)
            raise PipelineMismatchError(f"the pipeline has no free {direction} {socket}; it has {listed}")
    return sockets


def _guess(names: frozenset[str], open_inputs: Sockets) -> Iterator[Socket]:
    for component, sockets in open_inputs.items():
        yield from (Socket(component, socket) for socket in sockets if socket in names)


def _check_mandatory(open_inputs: Sockets, mapped: set[Socket]) -> None:
    """Raise PipelineMismatchError if a mandatory input is not mapped."""
    for component, sockets in open_inputs.items():
        for socket, attributes in sockets.items():
            if attributes["is_mandatory"] and Socket(component, socket) not in mapped:
                raise PipelineMismatchError(
                    f"the pipeline's mandatory input {component}.{socket} gets no value: map it under `inputs`"
                )


def _guess_streaming_component(pipeline: Any, open_inputs: Sockets) -> str | None:
    """Return the last component that can stream, preferring those whose output is an output of the pipeline."""
    able = [name for name, sockets in open_inputs.items() if "streaming_callback" in sockets]
    final = [name for name in able if name in pipeline.outputs()]
    return next(reversed(final or able), None)


def _guess_answer(pipeline: Any, streaming: str | None, all_outputs: Sockets) -> Socket:
    candidates: list[Sockets] = [pipeline.outputs(), all_outputs]
    if streaming is not None:
        candidates.insert(0, {streaming: all_outputs.get(streaming, {})})
    for outputs in candidates:
        for socket in OUTPUT_NAMES:
            for component, sockets in reversed(list(outputs.items())):
                if socket in sockets:
                    return Socket(component, socket)
    raise PipelineMismatchError(
        "the pipeline has no output that could be an answer: name it under `outputs` as `answer`"
    )


def _guess_documents(pipeline: Any) -> Socket | None:
    """Return the output that feeds the built-in generator, which numbers its documents as the citations do."""
    for sender, receiver, edge in pipeline.graph.edges(data=True):
        instance = pipeline.graph.nodes[receiver]["instance"]
        if isinstance(instance, GroundedChatGenerator) and edge["to_socket"].name == "documents":
            return Socket(sender, edge["from_socket"].name)
    return None
