import pytest

pytest.register_assert_rewrite("tests.support")  # whose asserts say as much as those of tests
