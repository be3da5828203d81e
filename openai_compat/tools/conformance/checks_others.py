"""Questions about the other doors: text completions, embeddings, models, responses."""

from __future__ import annotations

import base64
import json
import struct
from urllib.parse import quote

from .client import CheckSkipped, ConformanceClient, error_of, expect, to_object, to_stream
from .registry import Section

COMPLETIONS = Section("text completions")
EMBEDDINGS = Section("embeddings")
MODELS = Section("models")
RESPONSES = Section("responses")
SECTIONS = (COMPLETIONS, EMBEDDINGS, MODELS, RESPONSES)
CLOSE = 1e-4


@COMPLETIONS.question("it is a `text_completion` with text, finish_reason and usage", why="typed clients")
def text_completion(interview: ConformanceClient) -> None:
    completion = interview.completion
    expect(completion["object"] == "text_completion", f"object {completion['object']!r}")
    choice = completion["choices"][0]
    missing = {"text", "index", "logprobs", "finish_reason"} - choice.keys()
    expect(not missing, f"a choice without {', '.join(sorted(missing))}")
    expect(completion["usage"]["total_tokens"], f"usage {completion['usage']}")


@COMPLETIONS.question("so are the chunks of its stream, and [DONE] ends it", why="they have no `.chunk` of their own")
def text_completion_chunks(interview: ConformanceClient) -> None:
    stream = to_stream(interview.ask_completion("Once upon a time", stream=True))
    expect(stream.data[-1] == "[DONE]", f"the end is {stream.data[-1][:80]}")
    for chunk in stream.objects:
        expect(chunk["object"] == "text_completion", f"object {chunk['object']!r}")
        for choice in chunk["choices"]:
            missing = {"text", "index", "logprobs", "finish_reason"} - choice.keys()
            expect(not missing, f"a choice without {', '.join(sorted(missing))}")


@COMPLETIONS.question("several prompts are answered in one call, in order", why="evaluations send them in batches")
def several_prompts(interview: ConformanceClient) -> None:
    choices = to_object(interview.ask_completion(["One", "Two"]))["choices"]
    expect([choice["index"] for choice in choices] == [0, 1], f"{len(choices)} choices")


@COMPLETIONS.question("a prompt may be token ids", why="evaluation tools send nothing else")
def prompt_of_token_ids(interview: ConformanceClient) -> None:
    to_object(interview.ask_completion([1, 2, 3]))


@EMBEDDINGS.question("a list of `embedding` objects, with index and usage", why="typed clients")
def embedding_objects(interview: ConformanceClient) -> None:
    reply = to_object(interview.embed("A cat.", encoding_format="float"))
    expect(reply["object"] == "list", f"object {reply['object']!r}")
    item = reply["data"][0]
    expect(item["object"] == "embedding" and item["index"] == 0, f"{ {**item, 'embedding': '...'} }")
    expect(isinstance(item["embedding"][0], float), f"embedding of {type(item['embedding']).__name__}")
    expect(reply["usage"]["prompt_tokens"] and reply["usage"]["total_tokens"], f"usage {reply['usage']}")


@EMBEDDINGS.question("base64 is the same numbers, little-endian float32", why="the official clients ask for it unasked")
def embedding_base64(interview: ConformanceClient) -> None:
    (floats,) = interview.vectors("A cat.", encoding_format="float")
    (encoded,) = interview.vectors("A cat.", encoding_format="base64")
    expect(isinstance(encoded, str), "base64 was asked for, numbers came")
    raw = base64.b64decode(encoded)
    numbers = struct.unpack(f"<{len(raw) // 4}f", raw)
    expect(len(numbers) == len(floats), f"{len(numbers)} numbers instead of {len(floats)}")
    worst = max(abs(one - other) for one, other in zip(numbers, floats, strict=True))
    expect(worst < CLOSE, f"they differ by {worst}")


@EMBEDDINGS.question("several inputs keep their order", why="vectors are stored under the wrong text otherwise")
def embedding_order(interview: ConformanceClient) -> None:
    (first,) = interview.vectors("A cat.", encoding_format="float")
    both = interview.vectors(["A dog on a hill.", "A cat."], encoding_format="float")
    expect(len(both) == 2, f"{len(both)} vectors")
    distances = [sum((one - other) ** 2 for one, other in zip(vector, first, strict=True)) for vector in both]
    expect(distances[1] <= distances[0], "the second vector is not the second text's")


@EMBEDDINGS.question("inputs may be token ids", why="LangChain sends them")
def embedding_of_token_ids(interview: ConformanceClient) -> None:
    expect(len(interview.vectors([[1, 2, 3], [4, 5]], encoding_format="float")) == 2, "not two vectors")


@EMBEDDINGS.question("an empty input is a 400", why="a vector of nothing poisons an index silently")
def embedding_of_nothing(interview: ConformanceClient) -> None:
    error_of(interview.embed(""), 400)


@EMBEDDINGS.question("`dimensions` is kept, or a 400", why="a longer vector does not fit into the index")
def embedding_dimensions(interview: ConformanceClient) -> None:
    answer = interview.embed("A cat.", encoding_format="float", dimensions=8)
    if answer.status == 400:
        error_of(answer, 400)
        return
    length = len(to_object(answer)["data"][0]["embedding"])
    expect(length == 8, f"8 were asked for, {length} came")


@MODELS.question("the list has id, object, created and owned_by", why="typed clients and every model picker")
def models_list(interview: ConformanceClient) -> None:
    reply = to_object(interview.send("GET", "models"))
    expect(reply["object"] == "list", f"object {reply['object']!r}")
    expect(isinstance(reply["data"], list), "data is no list")
    for model in reply["data"]:
        missing = {"id", "object", "created", "owned_by"} - model.keys()
        expect(not missing, f"a model without {', '.join(sorted(missing))}")
        expect(model["object"] == "model" and isinstance(model["created"], int), f"{model}")


@MODELS.question("one model is described under its id", why="some clients look before they ask")
def models_one(interview: ConformanceClient) -> None:
    listed = to_object(interview.send("GET", "models"))["data"]
    names = [model["id"] for model in listed]
    name = interview.subject.model if interview.subject.model in names or not names else names[0]
    reply = to_object(interview.send("GET", f"models/{quote(name, safe='')}"))
    expect(reply["id"] == name and reply["object"] == "model", f"{reply}")


@MODELS.question("an unknown one is a 404 in the envelope", why="the same")
def models_unknown(interview: ConformanceClient) -> None:
    answer = interview.send("GET", "models/no-such-model-anywhere")
    if answer.status == 200:
        raise CheckSkipped("it describes any model name")
    error_of(answer, 404)


@RESPONSES.question("its stream has `response.created` first, rising numbers, one end, no [DONE]", why="state machines")
def responses_stream(interview: ConformanceClient) -> None:
    payload = {"model": interview.subject.model, "input": "Say hello.", "stream": True}
    answer = interview.post("responses", payload)
    if answer.status in {400, 403, 404, 405, 501}:
        raise CheckSkipped(f"there are no responses ({answer.status})")
    stream = to_stream(answer)
    events = [json.loads(text) for text in stream.data if text != "[DONE]"]
    expect("[DONE]" not in stream.data, "[DONE]")
    expect([event["type"] for event in events] == stream.names, "the event: lines differ from the types")
    expect(events[0]["type"] == "response.created", f"the first is {events[0]['type']}")
    ends = {"response.completed", "response.incomplete", "response.failed"}
    expect(events[-1]["type"] in ends, f"the last is {events[-1]['type']}")
    numbers = [event["sequence_number"] for event in events]
    expect(numbers == sorted(set(numbers)), f"sequence numbers {numbers[:10]}")
