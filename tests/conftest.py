"""What all tests share: no test signs with the key of the person who runs it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Kernels are compiled on their first call, and machines that run tests are busy: no deadline per example.
settings.register_profile("coterie", deadline=None)
settings.load_profile("coterie")

# The contract suites are imported by many test modules; whoever imports one first, its asserts must explain themselves.
pytest.register_assert_rewrite("tests.contracts")


@pytest.fixture(scope="session", autouse=True)
def _own_signing_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COTERIE_HOME", str(tmp_path_factory.mktemp("installation")))
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data that COTERIE_DATA names (default: ../shared/data); tests that need it skip without."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("COTERIE_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data sets at {folder}; COTERIE_DATA names their folder")
    return folder
