"""How a conversation goes into a pipeline's inputs, and where its answer comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .errors import PipelineMismatchError
from .generator import GroundedChatGenerator

INPUT_NAMES: Final[Mapping[str, frozenset[str]]] = {
    "messages": frozenset({"messages"}),
    "query": frozenset({"query", "question", "text", "prompt"}),
    "history": frozenset({"history", "chat_history", "memories"}),
    "parameters": frozenset({"generation_kwargs"}),
}
"""What there is to say, and the inputs that take it where the row does not name them:

`messages` the whole conversation, `query` the text of the user's last message, `history` the conversation before that
message, `parameters` the sampling parameters as a dict.
"""
OUTPUT_NAMES: Final = ("replies", "answers", "last_message", "documents")
"""The outputs that can be an answer, the best first."""


class Socket(NamedTuple):
    """An input or an output of a component."""

    component: str
    socket: str

    def __str__(self) -> str:
        return f"{self.component}.{self.socket}"


@dataclass(frozen=True, slots=True)
class IOMapping:
    """`inputs` has the places of each thing that is said; `stream_from` the component whose pieces go to the client;
    `documents` where the passages come out that the answer rests on."""

    inputs: Mapping[str, Sequence[Socket]]
    answer: Socket
    documents: Socket | None
    stream_from: str | None

    @property
    def outputs_from(self) -> set[str]:
        return {self.answer.component} | ({self.documents.component} if self.documents else set())

    def to_inputs(self, said: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What `Pipeline.run` takes."""
        filled: dict[str, dict[str, Any]] = {}
        for what, places in self.inputs.items():
            for place in places:
                filled.setdefault(place.component, {})[place.socket] = said[what]
        return filled


def map_pipeline(
    pipeline: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any], stream_from: str | None
) -> IOMapping:
    """The row's own places, and guesses for the others.

    Raises:
        UnfitPipelineError: with a sentence on what is wrong: no such place, an input that nothing fills, no answer.
    """
    open_inputs = pipeline.inputs()
    all_outputs = pipeline.outputs(include_components_with_connected_outputs=True)
    unknown = [what for what in inputs if what not in INPUT_NAMES]
    unknown += [what for what in outputs if what not in {"answer", "documents"}]
    if unknown:
        raise PipelineMismatchError(f"'{unknown[0]}' is neither one of {', '.join(INPUT_NAMES)} nor answer, documents")
    places = {
        what: _parse(inputs[what], open_inputs, "input") if what in inputs else list(_guess(names, open_inputs))
        for what, names in INPUT_NAMES.items()
    }
    _check_filled(open_inputs, {place for listed in places.values() for place in listed})
    speaker = stream_from or _guess_streaming_component(pipeline, open_inputs)
    if speaker is not None and "streaming_callback" not in open_inputs.get(speaker, {}):
        raise PipelineMismatchError(f"stream_from: '{speaker}' has no input `streaming_callback`")
    named = {what: _parse(place, all_outputs, "output")[0] for what, place in outputs.items()}
    answer = named.get("answer") or _guess_answer(pipeline, speaker, all_outputs)
    return IOMapping(places, answer, named.get("documents") or _guess_documents(pipeline), speaker)


def _parse(value: Any, known: Mapping[str, Mapping[str, Any]], what: str) -> list[Socket]:
    places = [Socket(*place.split(".", 1)) for place in (value if isinstance(value, list) else [value])]
    for place in places:
        if place.socket not in known.get(place.component, {}):
            listed = ", ".join(str(Socket(name, socket)) for name, sockets in known.items() for socket in sockets)
            raise PipelineMismatchError(f"the pipeline has no free {what} {place}; it has {listed}")
    return places


def _guess(names: frozenset[str], open_inputs: Mapping[str, Mapping[str, Any]]) -> Iterator[Socket]:
    for component, sockets in open_inputs.items():
        yield from (Socket(component, socket) for socket in sockets if socket in names)


def _check_filled(open_inputs: Mapping[str, Mapping[str, Any]], filled: set[Socket]) -> None:
    for component, sockets in open_inputs.items():
        for socket, facts in sockets.items():
            if facts["is_mandatory"] and Socket(component, socket) not in filled:
                raise PipelineMismatchError(
                    f"nothing fills the pipeline's input {component}.{socket}: name it under `inputs`"
                )


def _guess_streaming_component(pipeline: Any, open_inputs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The last component that can stream; one whose replies nobody else takes comes before all others."""
    able = [name for name, sockets in open_inputs.items() if "streaming_callback" in sockets]
    final = [name for name in able if name in pipeline.outputs()]
    return next(reversed(final or able), None)


def _guess_answer(pipeline: Any, speaker: str | None, all_outputs: Mapping[str, Mapping[str, Any]]) -> Socket:
    preferred: list[Mapping[str, Mapping[str, Any]]] = [pipeline.outputs(), all_outputs]
    if speaker is not None:
        preferred.insert(0, {speaker: all_outputs.get(speaker, {})})
    for outputs in preferred:
        for socket in OUTPUT_NAMES:
            for component, sockets in reversed(list(outputs.items())):
                if socket in sockets:
                    return Socket(component, socket)
    raise PipelineMismatchError(
        "the pipeline has no output that could be an answer: name it under `outputs` as `answer`"
    )


def _guess_documents(pipeline: Any) -> Socket | None:
    """What the built-in generator is given: it numbers the passages as the answer's sources are numbered."""
    for sender, receiver, edge in pipeline.graph.edges(data=True):
        instance = pipeline.graph.nodes[receiver]["instance"]
        if isinstance(instance, GroundedChatGenerator) and edge["to_socket"].name == "documents":
            return Socket(sender, edge["from_socket"].name)
    return None
