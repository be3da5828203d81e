"""Schemas of the requests for the administration endpoints.

Types and structure are validated here, and the values of a policy in `accounts/policy.py`. Unknown keys are refused,
because a limit that is misspelled would be no limit.
"""

from __future__ import annotations

from typing import Any, Final

from .base import FieldError, RequestSchema
from .fields import AnyObject, Boolean, Integer, List, Number, OneOf, String

MAX_TAGS: Final = 32
MAX_SECONDS: Final = 10 * 366 * 86_400
MAX_TIME: Final = 2**40


class AdministrationSchema(RequestSchema):
    """Base of these schemas."""

    def check(self, data: dict[str, Any]) -> None:
        for name in data:
            if name not in self.load_fields:
                raise FieldError("Unknown parameter:", ".", "unknown_parameter", name)


class AccountSchema(AdministrationSchema):
    """What may be chosen of an organization, a project or a key."""

    name = String(description="A name for people, up to 200 characters.", example="Search")
    enabled = Boolean(description="`false` refuses all calls.")
    expires_at = Integer(description="Unix time from which calls are refused. `null` means never.")
    policy = AnyObject(
        description="What the caller may do. Absent parts allow everything.",
        example={
            "models": ["gpt-4o*"],
            "endpoints": ["chat", "embeddings"],
            "limits": {"requests_per_minute": 60, "tokens_per_minute": 100000, "concurrent_requests": 10},
            "budgets": [{"amount": 5, "every": "month", "time_zone": "UTC"}],
            "end_users": {"limits": {"requests_per_minute": 5}},
        },
    )
    metadata = AnyObject(description="Up to 16 pairs of texts of your own.")
    tags = List(String(), max_items=MAX_TAGS, description="Words by which you find it.")

    def check(self, data: dict[str, Any]) -> None:
        super().check(data)
        expires_at = data.get("expires_at")
        if expires_at is not None and not 0 <= expires_at <= MAX_TIME:
            raise FieldError("Invalid value for", ": it must be a Unix time in seconds.", "invalid_value", "expires_at")


class NewAccountSchema(AccountSchema):
    """Body of a request that creates a project or a key."""

    name = String(required=True, description="A name for people, up to 200 characters.", example="Search")


class RotationSchema(AdministrationSchema):
    """Body of a request that gives a key another secret."""

    overlap_seconds = Integer(description="Seconds for which the old secret stays valid. 0 by default.", example=3600)

    def check(self, data: dict[str, Any]) -> None:
        super().check(data)
        if not 0 <= (data.get("overlap_seconds") or 0) <= MAX_SECONDS:
            after = f": it must be between 0 and {MAX_SECONDS}."
            raise FieldError("Invalid value for", after, "invalid_value", "overlap_seconds")


class MeterSchema(AdministrationSchema):
    """Body of a request that corrects what was used of a limit or a budget."""

    name = String(required=True, description="Name of the meter.", example="budget:month:UTC")
    used = OneOf(Integer(), Number(), required=True, description="The new amount, of money in dollars.", example=0)


class SignInSchema(AdministrationSchema):
    """Body of the request that starts a session of the admin page."""

    admin_api_key = String(required=True, description="The server's key, under a name that the log masks.")


class ModelTestSchema(AdministrationSchema):
    """Body of a request that tests a model, or one of its targets."""

    model = String(required=True, description="Name of the model.")
    target = String(description="Name of one of its targets, which is then called alone.")


ACCOUNT_REQUEST: Final = AccountSchema()
NEW_ACCOUNT_REQUEST: Final = NewAccountSchema()
ROTATION_REQUEST: Final = RotationSchema()
METER_REQUEST: Final = MeterSchema()
SIGN_IN_REQUEST: Final = SignInSchema()
MODEL_TEST_REQUEST: Final = ModelTestSchema()
