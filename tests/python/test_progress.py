"""Progress: parts of the whole, and the time that is left."""

from __future__ import annotations

import pytest

from rustasr import progress as module
from rustasr.progress import Progress, Timed, part


def test_parts_follow_each_other() -> None:
    seen = list[Progress]()
    for first, last in ((0.0, 0.25), (0.25, 1.0)):
        report = part(seen.append, first, last)
        for done in (0.0, 50.0, 100.0):
            report(Progress(done, 100.0))
    assert [report.done_s for report in seen] == [0.0, 12.5, 25.0, 25.0, 62.5, 100.0]


def test_the_time_that_is_left_follows_the_mean_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    seen = list[Progress]()
    timed = Timed(seen.append)
    timed(Progress(0.0, 600.0))
    now += 10
    timed(Progress(100.0, 600.0))
    timed.restart(300.0)  # so much was known from an earlier run
    timed(Progress(300.0, 600.0))
    now += 10
    timed(Progress(400.0, 600.0))
    timed(Progress(400.0, None))
    assert [report.eta_s for report in seen] == [None, 50.0, None, 20.0, None]
