"""Failed assertions of the inherited suites say what was compared."""

import pytest

pytest.register_assert_rewrite("tests.contracts.model", "tests.contracts.reference")
