"""Text as it comes in, as an iterator: the transcription runs in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from rustasr.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rustasr.progress import PartialText
    from rustasr.types import TranscriptionResult

    Work: TypeAlias = Callable[["TextStream"], TranscriptionResult]


class TextStream(Iterator["PartialText"]):
    """Iterates over the text that `work` puts into the stream while it runs.

    Errors of the work are raised by the iteration and by `result`. Close the stream, or use it in a
    `with`, to stop the work early: it ends where it next puts or checks.
    """

    def __init__(self, work: Work) -> None:
        self._texts: queue.SimpleQueue[PartialText | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._result: TranscriptionResult | None = None
        self._error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name="rustasr-stream", daemon=True)
        self._thread.start()

    def __next__(self) -> PartialText:
        text = None if self._closed.is_set() else self._texts.get()
        if text is not None:
            return text
        self._texts.put(None)  # the end stays the end
        if self._error is not None and not self._closed.is_set():
            raise self._error
        raise StopIteration

    def result(self) -> TranscriptionResult:
        """The complete result; waits for it. Raises what the work has raised, Cancelled after `close`."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def put(self, text: PartialText) -> None:
        """For the work: the next piece of text. Raises Cancelled once the stream is closed."""
        self.check()
        self._texts.put(text)

    def check(self) -> None:
        """For the work: raises Cancelled once the stream is closed."""
        if self._closed.is_set():
            raise Cancelled

    def close(self) -> None:
        """Stop the work; the iteration is over."""
        self._closed.set()

    def __enter__(self) -> TextStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            self._result = self._work(self)
        except BaseException as error:
            self._error = error
        finally:
            self._texts.put(None)


__all__ = ["TextStream"]
