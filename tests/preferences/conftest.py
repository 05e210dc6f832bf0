"""A folder of drops for each test."""

import sys
from pathlib import Path

import pytest

# Test folders are no packages (import-mode=importlib), so a helper shared by test files needs its folder on the path.
sys.path.insert(0, str(Path(__file__).parent))

from preference_worlds import World


@pytest.fixture
def world(tmp_path):
    """Drops written and built below one folder."""
    return World(tmp_path)
