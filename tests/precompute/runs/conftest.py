"""A base that has learnt something, made once a worker."""

from pathlib import Path

import pytest

from tests.trained import save_learnt_model


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_learnt_model(tmp_path_factory.mktemp("learnt"))
