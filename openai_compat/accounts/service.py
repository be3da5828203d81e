"""Accounts of one application, as the web layer uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from time import time
from typing import TYPE_CHECKING, Any, Final

from openai_compat.backends.base import SupportsMessages
from openai_compat.core.anthropic import end_user_in
from openai_compat.core.errors import AccountsUnavailableError, AuthenticationError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.types import Usage
from openai_compat.routing.router import Route
from openai_compat.state.ledger import Ledger
from openai_compat.state.sqlite_file import MEMORY
from openai_compat.state.sqlite_ledger import SQLiteLedger
from openai_compat.storage import Storage
from openai_compat.storage.native_thread import NativeThread

from .account import Account, Caller
from .accounts_file import AccountsFile
from .bookkeeper import Bookkeeper
from .call_size import CHARS_PER_TOKEN, AnyCall, answers_of, input_tokens_of, output_tokens_of
from .charges import has_budget
from .directory import KeyDirectory
from .gate import Admission, CallDescription, Gate, GatePolicy, Outcome, check_permission
from .keys import is_token
from .leftovers import LeftoverFiles
from .limit_headers import MESSAGES
from .manager import AccountManager
from .meters import Meters
from .price_book import FREE, PriceBook
from .usage_report import UsageReports

if TYPE_CHECKING:
    from .identity_tokens import Identity, TokenVerifier

LEDGER_FILE: Final = "ledger.db"
LEFTOVERS: Final = "unsettled"
"""Folder in `DATA_DIR` of what workers could not settle before they stopped."""
OTHER: Final = "other"
"""Group of the endpoints that are passed through."""
ENDPOINT_GROUPS: Final = {
    "chat/completions": "chat",
    "responses/input_tokens": "responses",
    "responses/compact": "responses",
    "messages/count_tokens": "messages",
}
"""Path of an endpoint -> its group, where that is not the path."""
RESPONSES: Final = "responses"
COUNTS: Final = frozenset({"messages/count_tokens", "responses/input_tokens"})
"""Paths of calls that only count tokens, which cost nothing."""
CLIENT_GONE: Final = 499
MAX_TOKENS: Final = 10**9
"""Tokens of a call above which an upstream's counts are not believed."""
REDIS_SCHEMES: Final = ("redis:", "rediss:", "unix:")
TOKEN: Final = "token"  # noqa: S105 - no secret
"""Source of the keys that an identity provider vouches for, which are stored nowhere."""
MAX_END_USER_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class EndedCall:
    """How a call ended.

    `streamed_tokens` is an estimate of the tokens that a streamed answer had, None for any other. `answer_bytes` is the
    length of a complete one. With `goes_on` the upstream works on after the call. `is_sent` is False if no upstream got
    a request for it. `served` is the model config that answered, and `served_by` its name where the route has several.
    """

    status: int
    duration_ms: int
    usage: Usage | None
    streamed_tokens: int | None = None
    answer_bytes: int = 0
    goes_on: bool = False
    is_sent: bool = True
    served: ModelConfig | None = None
    served_by: str | None = None
    attempts: int = 1
    error: str | None = None
    first_token_ms: int | None = None

    @property
    def is_cut(self) -> bool:
        """True if the client disconnected, or the call ended with an error."""
        return self.status >= 400 or self.error is not None


class Accounts:
    """What the web layer asks about callers."""

    def __init__(self, settings: Settings, storage: Storage, ledger: Ledger, tidy_ledger: Ledger) -> None:
        """Use `tidy_ledger`, which is the same ledger over another connection, in the background."""
        self.ledger = ledger
        self._tidy_ledger = tidy_ledger
        self._assumed_output_tokens = settings.assumed_output_tokens
        self._tokens = _to_verifier(settings)
        self.directory = KeyDirectory(storage, ledger, settings.key_grace_seconds)
        self._thread: NativeThread | None = None
        leftovers = LeftoverFiles(Path(settings.data_dir).absolute() / LEFTOVERS)
        self.bookkeeper = Bookkeeper(ledger, storage, self._tidy, leftovers, settings.usage_ttl)
        self.prices = PriceBook()
        self.manager = AccountManager(storage, ledger)
        self._file = AccountsFile(settings.declared_accounts, storage, ledger) if settings.accounts_file else None
        self.meters = Meters(ledger)
        self.usage = UsageReports(storage)
        self.gate = Gate(
            ledger,
            SQLiteLedger(MEMORY, "local"),
            self.bookkeeper,
            GatePolicy(settings.limits_without_store, settings.budgets_without_store, settings.unknown_price),
        )

    def is_active(self) -> bool:
        """Return True once an account was made, and always with an accounts file or an identity provider.

        Raises:
            AccountsUnavailableError: that is unknown.
        """
        return self._tokens is not None or self._file is not None or self.directory.is_active()

    def apply_file(self) -> None:
        """Start to apply the accounts file, if there is one."""
        if self._file is not None:
            self._file.start()

    def find_caller(self, key: str) -> Caller | None:
        """Return the caller of a key or a token, or None if there is no such key.

        Raises:
            AuthenticationError: the key, its project or its organization is disabled or has expired, or the token is
                not valid.
            AccountsUnavailableError: it cannot be checked now.
        """
        caller: Caller | None
        if self._tokens is not None and is_token(key):
            caller = self._find_by_identity(self._tokens.verify(key))
        else:
            caller = self.directory.find(key)
            if caller is None and self._file is not None and not self._file.is_applied:
                raise AccountsUnavailableError
        if caller is not None and not caller.is_valid(time()):
            raise AuthenticationError("This API key is disabled or has expired.")
        return caller

    def _find_by_identity(self, identity: Identity) -> Caller:
        key = Account(
            identity.id,
            "key",
            identity.subject,
            created_at=0,
            parent_id=identity.project_id,
            expires_at=identity.expires_at,
            source=TOKEN,
            tags=identity.tags,
        )
        caller = self.directory.find_in_project(key)
        if caller is None and identity.project_id is None:
            self.manager.create_defaults()
            self.directory.look_again()
            caller = self.directory.find_in_project(key)
        if caller is None:
            raise AuthenticationError("The project that the token names does not exist.")
        return caller

    def admit(
        self, caller: Caller | None, call: AnyCall, route: Route, request_id: str, stored_tokens: Callable[[], int]
    ) -> Admission:
        """Admit an inference call, or refuse it.

        `stored_tokens` returns the estimate of the input tokens that the call repeats from this server's store. It is
        asked for callers with an account only.

        Raises:
            PermissionDeniedError, LimitExceededError, BudgetExceededError, AccountsUnavailableError
        """
        payload = call.payload
        repeated = 0 if caller is None else stored_tokens()
        needs_price = caller is not None and has_budget(caller)
        return self.gate.admit(
            caller,
            CallDescription(
                ENDPOINT_GROUPS.get(call.path, call.path),
                route.model,
                request_id,
                input_tokens_of(call.body, payload) + repeated,
                most_output_tokens(call, route, self._assumed_output_tokens),
                end_user_of(call.path, payload) or _subject_of(caller),
                self.prices.highest(route, waits=needs_price),
                is_background=call.path == RESPONSES and payload.get("background") is True,
                is_generation=call.path not in COUNTS,
            ),
        )

    def admit_other(self, caller: Caller | None, model: str, request_id: str, *, is_free: bool) -> Admission:
        """Admit a call that is passed through to an upstream, whose tokens are not known.

        `model` is empty if the call names none. The price of a call is unknown unless it is free.

        Raises:
            As `admit`.
        """
        price = FREE if is_free else None
        return self.gate.admit(caller, CallDescription(OTHER, model, request_id, price=price))

    def settle(self, admission: Admission, ended: EndedCall) -> None:
        """Settle a call. Without the upstream's counts, or with absurd ones, its tokens are estimated.

        The counts of a stream that was cut may be those of its start, so that the estimate counts if it is higher.
        """
        call = admission.call
        usage = None if ended.usage is None or _is_absurd(ended.usage) else ended.usage
        is_estimated = usage is None
        streamed = ended.streamed_tokens or 0
        if usage is None:
            usage = _estimate_usage(call, ended)
        elif ended.is_cut and streamed > usage.completion_tokens:
            usage, is_estimated = replace(usage, completion_tokens=streamed), True
        served_by = ended.served_by or call.model
        price = None if ended.served is None else self.prices.find(ended.served, served_by)
        admission.settle(
            Outcome(
                ended.status,
                ended.duration_ms,
                served_by,
                usage,
                is_estimated and usage is not None,
                price or call.price,
                ended.attempts,
                ended.error,
                ended.first_token_ms,
            )
        )

    def close(self) -> None:
        """Stop the work in the background, and close the ledger.

        The thread that tidies the ledger closes it, because they share locks (`NativeThread`).
        """
        if self._file is not None:
            self._file.close()
        self.bookkeeper.close()
        self.ledger.close()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.call(self._tidy_ledger.close)
            thread.close()

    def _tidy(self, now: float) -> None:
        """Tidy the ledger in a native thread, because SQLite waits for the disk when it writes its log back."""
        if self._thread is None:
            self._thread = NativeThread()
        self._thread.call(lambda: self._tidy_ledger.tidy(now))


def _estimate_usage(call: CallDescription, ended: EndedCall) -> Usage | None:
    """Return the usage of a call whose upstream did not tell it, or None if there was no answer.

    A call that goes on at the upstream, where its answer can be read later, counts with the most that it may use. A
    background response that failed has the status of its failure, also if a part of it can be read.
    """
    has_failed = ended.status >= 400 and ended.status != CLIENT_GONE
    if not call.is_generation or (has_failed and not ended.streamed_tokens):
        return None
    if ended.status == CLIENT_GONE and not ended.is_sent:  # it waited for a slot or for the connection
        return None
    if ended.goes_on:
        return Usage(call.input_tokens, call.output_tokens)
    if ended.status == CLIENT_GONE:  # the upstream has read the prompt, and hanging up must not make it free
        return Usage(call.input_tokens, ended.streamed_tokens or 0)
    if ended.streamed_tokens is not None:
        return Usage(call.input_tokens, ended.streamed_tokens) if ended.streamed_tokens else None
    return Usage(call.input_tokens, min(ended.answer_bytes // CHARS_PER_TOKEN, call.output_tokens))


def _is_absurd(usage: Usage) -> bool:
    """Return True for counts that no call can have, and whose sums would not fit into the database."""
    highest = max(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.cache_write_tokens)
    return max(highest, usage.reasoning_tokens) > MAX_TOKENS


def check_endpoint(caller: Caller, endpoint: str) -> None:
    """Raise an error if the caller may not use the endpoint.

    Raises:
        PermissionDeniedError
    """
    check_permission(caller, endpoint, None)


def _subject_of(caller: Caller | None) -> str | None:
    """Return the subject of a caller's token, who is the end user unless the request names another one."""
    return caller.key.name[:MAX_END_USER_CHARS] if caller is not None and caller.key.source == TOKEN else None


def _to_verifier(settings: Settings) -> TokenVerifier | None:
    """Return the verifier of the identity provider's tokens, or None without one."""
    if settings.jwt_jwks_url is None or settings.jwt_issuer is None or settings.jwt_audience is None:
        return None
    from .identity_tokens import TokenSettings, TokenVerifier  # 10 MB of libraries

    return TokenVerifier(
        TokenSettings(
            settings.jwt_jwks_url,
            settings.jwt_issuer,
            settings.jwt_audience,
            settings.jwt_project_claim,
            settings.jwt_tags_claim,
        )
    )


def most_output_tokens(call: AnyCall, route: Route, assumed: int) -> int:
    """Return the most tokens that the answer of a call may have.

    Messages calls that are translated are lowered to what the model may answer with. Claude Code asks for 32,000 tokens
    and more, which would use up the limits of its caller.
    """
    wanted = output_tokens_of(call.path, call.payload, assumed) * answers_of(call)
    if call.path != MESSAGES:
        return wanted
    plan = route.plan
    targets = () if plan is None else (*plan.targets.values(), *plan.fallbacks)
    backends = [target.backend for target in targets] or [route.backend]
    if any(isinstance(backend, SupportsMessages) for backend in backends):
        return wanted
    return max(min(wanted, backend.entry.max_output_tokens or wanted) for backend in backends)


def end_user_of(path: str, payload: Mapping[str, Any]) -> str | None:
    """Return the end user that the request names, in the way of the endpoint's protocol."""
    if ENDPOINT_GROUPS.get(path, path) == MESSAGES:
        name = end_user_in(payload.get("metadata"))
    else:
        name = payload.get("safety_identifier") or payload.get("user")
    return name[:MAX_END_USER_CHARS] if isinstance(name, str) and name else None


def open_accounts(settings: Settings, storage: Storage) -> Accounts | None:
    """Return the accounts, or None if they are off. Nothing is opened before an account exists."""
    if settings.accounts == "off":
        return None
    return Accounts(settings, storage, *open_ledgers(settings))


def open_ledgers(settings: Settings) -> tuple[Ledger, Ledger]:
    """Return the ledger over two connections, the second one for work in the background.

    Raises:
        ConfigurationError: the address of Redis is invalid, or the extra for it is not installed.
    """
    holder, url = token_hex(8), settings.shared_state_url
    if url is not None and url.startswith(REDIS_SCHEMES):
        from openai_compat.state.redis_ledger import RedisLedger

        ledger = RedisLedger(url, holder)
        return ledger, ledger
    path = str(Path(settings.data_dir).absolute() / LEDGER_FILE)
    return SQLiteLedger(path, holder), SQLiteLedger(path, holder)
