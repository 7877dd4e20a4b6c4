"""Where the ranks of the released Qwen vocabulary are, if they are: the package dashscope carries them."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path


def ranks_path() -> Path | None:
    """RUSTASR_TEST_QWEN_RANKS, or `resources/qwen.tiktoken` of an installed dashscope."""
    given = os.environ.get("RUSTASR_TEST_QWEN_RANKS")
    if given:
        return Path(given)
    spec = importlib.util.find_spec("dashscope")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = [path for folder in folders if (path := Path(folder, "resources", "qwen.tiktoken")).is_file()]
    return found[0] if found else None
