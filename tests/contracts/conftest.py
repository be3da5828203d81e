"""Assertion rewriting for the shared suite, whose module name does not begin with `test_`."""

import pytest

pytest.register_assert_rewrite("tests.contracts.backend_contract")
