"""The workspace that each thread has of a model of the core: sessions are not shared between threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rustasr import _core


def session_of(core: _core.Model, local: threading.local) -> _core.Session:
    """This thread's session of `core`, made at its first use and kept in `local`."""
    session: _core.Session | None = getattr(local, "session", None)
    if session is None:
        session = local.session = core.session()
    return session


__all__ = ["session_of"]
