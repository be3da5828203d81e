"""Many callers at once: one thread runs the model, and choices join and leave its batch between two tokens.

A turn of the thread is one piece of prompt (`prefill.py`), if somebody waits, and one token for every running choice.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Final

import torch

from openai_compat.core.errors import InternalError, ModelBusyError, OpenAICompatError

from .forward import ForwardPass
from .prefill import Prefill, fits_in
from .sampling import Chosen
from .sequence import GeneratedSequence, TextChunk

log = logging.getLogger(__name__)
OUT_OF_MEMORY: Final = "There is not enough memory for this request now. Try a shorter one, or again later."


class GenerationRequest:
    """The choices of one call. `pieces` gives what they gain; None means that the call was abandoned."""

    def __init__(self, choices: Iterable[GeneratedSequence]) -> None:
        self.pieces: SimpleQueue[TextChunk | None] = SimpleQueue()
        self.waiting = deque(choices)
        self.is_abandoned = False
        for choice in self.waiting:
            choice.emit = self.pieces.put
            choice.job = self

    def next_group(self, most: int) -> list[GeneratedSequence]:
        """The next choices that continue one prompt: it is read once for all of them."""
        group = [self.waiting.popleft()]
        while self.waiting and len(group) < most and self.waiting[0].prompt is group[0].prompt:
            group.append(self.waiting.popleft())
        return group


class Scheduler:
    """Runs jobs on one model, at most `max_batch` choices at a time; callers wait for their turn, one prompt each."""

    def __init__(self, forward: ForwardPass, max_batch: int, name: str) -> None:
        self._forward = forward
        self._max_batch = max_batch
        self._changed = threading.Condition()
        self._jobs: deque[GenerationRequest] = deque()
        self._is_closed = False
        self._cache = forward.new_cache()
        self._running: list[tuple[GeneratedSequence, int]] = []
        """One row of the cache each: the choice, and its newest token, which the cache does not have yet."""
        self._prefill: Prefill | None = None
        self._thread = threading.Thread(target=self._run, name=f"model {name}", daemon=True)
        self._thread.start()

    @property
    def memory_bytes(self) -> int:
        """What keys and values take now."""
        prefill = self._prefill
        return self._cache.memory_bytes + (prefill.cache.memory_bytes if prefill else 0)

    @property
    def work(self) -> int:
        """Calls that are waiting or running."""
        with self._changed:
            jobs = {*self._jobs, *(choice.job for choice, _ in self._running)}
            if self._prefill is not None:
                jobs |= {choice.job for choice in self._prefill.choices}
        return sum(not job.is_abandoned for job in jobs if job is not None)

    def submit(self, job: GenerationRequest) -> None:
        """Queues a job; its pieces come from the scheduler's thread.

        Raises:
            ModelBusyError: the model has been closed.
        """
        with self._changed:
            if self._is_closed:
                raise ModelBusyError("The model is being unloaded.")
            self._jobs.append(job)
            self._changed.notify()

    def abandon(self, job: GenerationRequest) -> None:
        """Nobody reads the job any more: its places are free before the next token. From any thread, at any time."""
        job.is_abandoned = True
        job.pieces.put(None)
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """Ends all work, and waits until nothing runs."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with torch.inference_mode():
            while self._wait_for_work():
                self._guarded(self._read_prompts, self._give_up_prompts)
                self._guarded(self._generate, self._give_up_running)
        self._give_up_running(ModelBusyError("The model was unloaded."))
        self._give_up_prompts(ModelBusyError("The model was unloaded."))

    def _wait_for_work(self) -> bool:
        """False once the scheduler is closed."""
        with self._changed:
            while not self._is_closed:
                self._jobs = deque(job for job in self._jobs if not job.is_abandoned)
                if self._jobs or self._running or self._prefill:
                    return True
                self._changed.wait()
        return False

    def _guarded(self, work: Callable[[], None], give_up: Callable[[OpenAICompatError], None]) -> None:
        try:
            work()
        except Exception as error:
            if is_out_of_memory(error):
                log.warning("Out of memory: %s", error)
                give_up(ModelBusyError(OUT_OF_MEMORY, code="out_of_memory"))
            else:
                log.exception("The model failed")
                give_up(error if isinstance(error, OpenAICompatError) else InternalError())

    def _read_prompts(self) -> None:
        """One step of the prompts that are being read, or the first one of those that wait."""
        if self._prefill is None:
            groups = self._admit()
            if not groups:
                return
            self._prefill = Prefill(self._forward, groups)
        if all(choice.is_abandoned for choice in self._prefill.choices):
            self._prefill = None
            return
        scores = self._prefill.step()
        if scores is not None:
            prefill, self._prefill = self._prefill, None
            self._join(prefill, scores)

    def _admit(self) -> list[list[GeneratedSequence]]:
        """Prompts to be read together, taken from the waiting calls in turn."""
        groups: list[list[GeneratedSequence]] = []
        with self._changed:
            free = self._max_batch - len(self._running)
            while self._jobs and free and fits_in(groups, self._jobs[0].waiting[0]):
                job = self._jobs.popleft()
                groups.append(job.next_group(free))
                free -= len(groups[-1])
                if job.waiting:
                    self._jobs.append(job)
        return groups

    def _join(self, prefill: Prefill, scores: torch.Tensor) -> None:
        """The first tokens after the prompts; who wants more joins the batch."""
        copies = []
        joining = []
        for group, of_prompt in zip(prefill.groups, scores, strict=True):
            begun = [(choice, _first_token(choice, of_prompt)) for choice in group]
            going_on = [(choice, token) for choice, token in begun if token is not None]
            copies.append(len(going_on))
            joining += going_on
        if joining and not self._running and copies == [1] * len(copies):
            self._cache = prefill.cache
        elif joining:
            try:
                self._cache.join(prefill.cache, copies)
            except Exception:
                prefill.begun = [choice for choice, _ in joining]
                self._prefill = prefill
                raise
        self._running += joining

    def _generate(self) -> None:
        """The next token of every running choice."""
        for row in reversed(range(len(self._running))):
            if self._running[row][0].is_abandoned:
                self._leave(row)
        if not self._running:
            return
        scores = self._forward.extend(self._cache, [[token] for _, token in self._running])[:, 0]
        tokens = _choose_all([choice for choice, _ in self._running], scores)
        for row in reversed(range(len(tokens))):
            token = tokens[row]
            if token is None:
                self._leave(row)
            else:
                self._running[row] = (self._running[row][0], token)

    def _leave(self, row: int) -> None:
        """The last row takes the free place, in the cache and here."""
        self._cache.remove(row)
        last = self._running.pop()
        if row < len(self._running):
            self._running[row] = last

    def _give_up_running(self, error: OpenAICompatError) -> None:
        """Out of memory, the longest gives up its place; after any other fault nothing can be trusted."""
        if isinstance(error, ModelBusyError) and not self._is_closed and len(self._running) > 1:
            row = max(range(len(self._running)), key=self._cache.lengths.__getitem__)
            self._running[row][0].fail(error)
            self._leave(row)
            return
        running, self._running = self._running, []
        self._cache = self._forward.new_cache()
        for choice, _ in running:
            choice.fail(error)

    def _give_up_prompts(self, error: OpenAICompatError) -> None:
        prefill, self._prefill = self._prefill, None
        if prefill is not None:
            for choice in prefill.begun if prefill.begun is not None else prefill.choices:
                choice.fail(error)
        if self._is_closed:
            for job in self._jobs:
                job.waiting[0].fail(error)


def is_out_of_memory(error: Exception) -> bool:
    """PyTorch's allocator for the CPU raises a plain RuntimeError that names itself."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _first_token(choice: GeneratedSequence, scores: torch.Tensor) -> int | None:
    if choice.limit == 0:
        choice.end_without_tokens()
        return None
    return _next_token(choice, lambda: choice.sampler.choose(scores[-1]))


def _next_token(choice: GeneratedSequence, choose: Callable[[], Chosen]) -> int | None:
    """The choice's next token, or None where that was its end; a fault is that choice's alone."""
    try:
        chosen = choose()
        return None if choice.accept(chosen) else chosen.token
    except OpenAICompatError as error:
        choice.fail(error)
    except Exception:
        log.exception("A choice failed")
        choice.fail(InternalError())
    return None


def _choose_all(choices: Sequence[GeneratedSequence], scores: torch.Tensor) -> list[int | None]:
    """The next token of each row; the plainly greedy ones are found in one operation."""
    values, tokens = (tensor.tolist() for tensor in scores.max(-1))
    chosen: list[int | None] = []
    for row, choice in enumerate(choices):
        if choice.sampler.is_plain and abs(values[row]) < float("inf"):
            plain = Chosen(tokens[row])
            chosen.append(_next_token(choice, lambda plain=plain: plain))  # type: ignore[misc]
        else:
            chosen.append(_next_token(choice, lambda row=row, choice=choice: choice.sampler.choose(scores[row])))  # type: ignore[misc]
    return chosen
