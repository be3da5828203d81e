"""Scheduler with continuous batching, in which sequences join and leave the running batch between two tokens.

One thread runs the model. In each turn it reads one part of the waiting prompts (`prefill.py`) and generates one token
for every running sequence.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import torch

from openai_compat.core.errors import InternalError, ModelBusyError, OpenAICompatError

from .forward import ForwardPass
from .prefill import Prefill, can_share_prefill
from .sampling import SampledToken
from .sequence import GeneratedSequence, GenerationRequest

log = logging.getLogger(__name__)
OUT_OF_MEMORY: Final = "There is not enough memory for this request now. Try a shorter one, or try again later."


class Scheduler:
    """Scheduler of one model's requests, which runs at most `max_batch` sequences at a time.

    Requests take turns, one prompt each.
    """

    def __init__(self, forward: ForwardPass, max_batch: int, name: str) -> None:
        self._forward = forward
        self._max_batch = max_batch
        self._changed = threading.Condition()
        self._queue: deque[GenerationRequest] = deque()
        self._is_closed = False
        self._cache = forward.new_cache()
        self._running: list[tuple[GeneratedSequence, int]] = []
        """For each row of the cache, the sequence and its newest token, which the cache does not have yet."""
        self._prefill: Prefill | None = None
        self._thread = threading.Thread(target=self._run, name=f"model {name}", daemon=True)
        self._thread.start()

    @property
    def memory_bytes(self) -> int:
        """The memory that keys and values occupy now."""
        prefill = self._prefill
        return self._cache.memory_bytes + (prefill.cache.memory_bytes if prefill else 0)

    @property
    def active_requests(self) -> int:
        """The number of requests that are waiting or running."""
        with self._changed:
            requests = {*self._queue, *(sequence.request for sequence, _ in self._running)}
            if self._prefill is not None:
                requests |= {sequence.request for sequence in self._prefill.sequences}
        return sum(not request.is_aborted for request in requests if request is not None)

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request. Its chunks come from the scheduler's thread.

        Raises:
            ModelBusyError: the model has been closed.
        """
        with self._changed:
            if self._is_closed:
                raise ModelBusyError("The model is being unloaded.")
            self._queue.append(request)
            self._changed.notify()

    def abort(self, request: GenerationRequest) -> None:
        """Abort a request, which frees its slots before the next token. Any thread may call this at any time."""
        request.is_aborted = True
        request.chunks.put(None)
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """End all requests and wait for the scheduler's thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with torch.inference_mode():
            while self._wait_for_work():
                self._run_guarded(self._read_prompts, self._fail_prompts)
                self._run_guarded(self._generate, self._fail_running)
        self._fail_running(ModelBusyError("The model was unloaded."))
        self._fail_prompts(ModelBusyError("The model was unloaded."))

    def _wait_for_work(self) -> bool:
        """Wait for a request. Return False once the scheduler is closed."""
        with self._changed:
            while not self._is_closed:
                self._queue = deque(request for request in self._queue if not request.is_aborted)
                if self._queue or self._running or self._prefill:
                    return True
                self._changed.wait()
        return False

    def _run_guarded(self, work: Callable[[], None], fail: Callable[[OpenAICompatError], None]) -> None:
        try:
            work()
        except Exception as error:
            if is_out_of_memory(error):
                log.warning("Out of memory: %s", error)
                fail(ModelBusyError(OUT_OF_MEMORY, code="out_of_memory"))
            else:
                log.exception("The model failed")
                fail(error if isinstance(error, OpenAICompatError) else InternalError())

    def _read_prompts(self) -> None:
        """Read the next part of the prompts, of the current prefill or of waiting requests."""
        if self._prefill is None:
            groups = self._admit()
            if not groups:
                return
            self._prefill = Prefill(self._forward, groups)
        if all(sequence.is_aborted for sequence in self._prefill.sequences):
            self._prefill = None
            return
        scores = self._prefill.step()
        if scores is not None:
            prefill, self._prefill = self._prefill, None
            self._join(prefill, scores)

    def _admit(self) -> list[list[GeneratedSequence]]:
        """Return groups of sequences whose prompts can be read together, from the waiting requests in turn."""
        groups: list[list[GeneratedSequence]] = []
        with self._changed:
            free = self._max_batch - len(self._running)
            while self._queue and free and can_share_prefill(groups, self._queue[0].waiting[0]):
                request = self._queue.popleft()
                groups.append(request.next_group(free))
                free -= len(groups[-1])
                if request.waiting:
                    self._queue.append(request)
        return groups

    def _join(self, prefill: Prefill, scores: torch.Tensor) -> None:
        """Choose the first token after each prompt, and add the sequences that continue to the batch."""
        copies = []
        joining = []
        for group, prompt_scores in zip(prefill.groups, scores, strict=True):
            started = [(sequence, _first_token(sequence, prompt_scores)) for sequence in group]
            continuing = [(sequence, token) for sequence, token in started if token is not None]
            copies.append(len(continuing))
            joining += continuing
        if joining and not self._running and copies == [1] * len(copies):
            self._cache = prefill.cache
        elif joining:
            try:
                self._cache.append(prefill.cache, copies)
            except Exception:
                prefill.started = [sequence for sequence, _ in joining]
                self._prefill = prefill
                raise
        self._running += joining

    def _generate(self) -> None:
        """Generate the next token of every running sequence."""
        for row in reversed(range(len(self._running))):
            if self._running[row][0].is_aborted:
                self._evict(row)
        if not self._running:
            return
        scores = self._forward.extend(self._cache, [[token] for _, token in self._running])[:, 0]
        tokens = _choose_all([sequence for sequence, _ in self._running], scores)
        for row in reversed(range(len(tokens))):
            token = tokens[row]
            if token is None:
                self._evict(row)
            else:
                self._running[row] = (self._running[row][0], token)

    def _evict(self, row: int) -> None:
        """Remove a row from the batch. The last row takes its index, as in the cache."""
        self._cache.remove(row)
        last = self._running.pop()
        if row < len(self._running):
            self._running[row] = last

    def _fail_running(self, error: OpenAICompatError) -> None:
        """Fail the longest sequence if memory ran out, else all of them, whose cache may be inconsistent."""
        if isinstance(error, ModelBusyError) and not self._is_closed and len(self._running) > 1:
            row = max(range(len(self._running)), key=self._cache.lengths.__getitem__)
            self._running[row][0].fail(error)
            self._evict(row)
            return
        running, self._running = self._running, []
        self._cache = self._forward.new_cache()
        for sequence, _ in running:
            sequence.fail(error)

    def _fail_prompts(self, error: OpenAICompatError) -> None:
        """Fail the sequences whose prompts are being read, and when the scheduler is closed the waiting ones too."""
        prefill, self._prefill = self._prefill, None
        if prefill is not None:
            for sequence in prefill.started if prefill.started is not None else prefill.sequences:
                sequence.fail(error)
        if self._is_closed:
            for request in self._queue:
                request.waiting[0].fail(error)


def is_out_of_memory(error: Exception) -> bool:
    """Return True for a memory error. PyTorch's CPU allocator raises a plain RuntimeError with its name."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _first_token(sequence: GeneratedSequence, scores: torch.Tensor) -> int | None:
    if sequence.max_tokens == 0:
        sequence.finish_without_tokens()
        return None
    return _next_token(sequence, lambda: sequence.sampler.choose(scores[-1]))


def _next_token(sequence: GeneratedSequence, choose: Callable[[], SampledToken]) -> int | None:
    """Return the sequence's next token, or None if it has ended. An error fails only this sequence."""
    try:
        sampled = choose()
        return None if sequence.accept(sampled) else sampled.token
    except OpenAICompatError as error:
        sequence.fail(error)
    except Exception:
        log.exception("A sequence failed")
        sequence.fail(InternalError())
    return None


def _choose_all(sequences: Sequence[GeneratedSequence], scores: torch.Tensor) -> list[int | None]:
    """Return the next token of each row. One operation finds those of all plainly greedy sequences."""
    values, tokens = (tensor.tolist() for tensor in scores.max(-1))
    chosen: list[int | None] = []
    for row, sequence in enumerate(sequences):
        if sequence.sampler.is_plain_greedy and abs(values[row]) < float("inf"):
            plain = SampledToken(tokens[row])
            chosen.append(_next_token(sequence, lambda plain=plain: plain))  # type: ignore[misc]
        else:
            sampler = sequence.sampler
            chosen.append(_next_token(sequence, lambda row=row, sampler=sampler: sampler.choose(scores[row])))  # type: ignore[misc]
    return chosen
