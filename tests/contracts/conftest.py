"""The contract's tests are in a module that is not called `test_...`; their asserts explain themselves all the same."""

import pytest

pytest.register_assert_rewrite("tests.contracts.backend_contract")
