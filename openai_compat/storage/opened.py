"""The stores of one database."""

from __future__ import annotations

from .accounts import AccountStore
from .adjustments import AdjustmentStore
from .calls import CallStore
from .completions import CompletionStore
from .conversations import ConversationStore, PipelineConversationStore
from .database import open_database
from .expiry import Expiry
from .leases import LeaseStore
from .location import Location
from .native_thread import NativeThread
from .objects import Lifetime
from .responses import ResponseStore
from .usage import UsageStore
from .usage_sums import UsageReader


class Stores:
    """The stores of one database, which share its connections and the expiry."""

    def __init__(self, location: Location, thread: NativeThread, ttl: float, max_bytes: int) -> None:
        self._database = database = open_database(location, thread)
        lifetime = Lifetime(ttl)
        self.leases = LeaseStore(database)
        self.accounts = AccountStore(database)
        self.calls = CallStore(database)
        self.adjustments = AdjustmentStore(database)
        self.usage = UsageStore(database)
        self.usage_reader = UsageReader(database)
        expiry = Expiry(database, self.leases, lifetime, max_bytes)
        self.responses = ResponseStore(database, lifetime, expiry.start_if_due)
        self.conversations = ConversationStore(database, lifetime, expiry.start_if_due)
        self.pipeline_conversations = PipelineConversationStore(database, lifetime, expiry.start_if_due)
        self.completions = CompletionStore(database, lifetime, expiry.start_if_due)

    def check(self) -> None:
        """Raise `StorageUnavailableError` if the database does not answer."""
        self._database.check()

    def close(self) -> None:
        """Close the connections and stop the renewal of leases."""
        self.leases.close()
        self._database.close()
