"""Ctrl-C that stops a long call into the core at once, and keeps what was finished."""

from __future__ import annotations

import atexit
import os
import queue
import sys
import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from rustasr.cli import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")

POLL_SECONDS = 0.2


class Worker:
    """Runs calls one after the other in a thread of its own; the main thread is free to receive Ctrl-C.

    Python delivers a signal only between bytecodes of the main thread: a call that computes for
    seconds would hold it back. At Ctrl-C `cancel` is called and the running call ends as it likes,
    normally with `Cancelled`; at a second one `run` raises KeyboardInterrupt without waiting. One
    thread serves all calls, because a model keeps a session for each thread.
    """

    def __init__(self, cancel: Callable[[], None]) -> None:
        self.interrupted = False
        self._cancel = cancel
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="rustasr-worker", daemon=True).start()

    def run(self, call: Callable[[], Value]) -> Value:
        """What `call` returns or raises. `interrupted` is set when Ctrl-C was pressed meanwhile."""
        future: Future[Value] = Future()
        self._calls.put((call, future))
        while not future.done():
            try:
                wait([future], POLL_SECONDS)
            except KeyboardInterrupt:
                if self.interrupted:
                    atexit.register(_leave_at_once, future)
                    raise
                self.interrupted = True
                self._cancel()
        return future.result()

    def _serve(self) -> None:
        while True:
            call, future = self._calls.get()
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)


def _leave_at_once(running: Future[Any]) -> None:
    """End the process without taking the interpreter down around a call that is still in compiled code.

    Coming back from there it would be ended in the middle of a C++ frame, which aborts the process.
    """
    if not running.done():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)


__all__ = ["Worker"]
