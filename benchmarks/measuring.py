"""What the timings here do alike: every measurement is a fresh process, engines take turns, rounds repeat.

A script's measured side prints one JSON line (`report`); its measuring side collects them (`fresh_process`,
`in_turn`) and tells medians over the rounds (`table`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
MARK = "measured: "


# --- the measured side ---


def peak_mb() -> float:
    """Largest resident set of this process so far, in MiB."""
    if sys.platform == "win32":
        raise SystemExit("peak memory is read with getrusage: run this on Linux or macOS")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


class Clock:
    """Wall and CPU seconds of the stages of one run."""

    def __init__(self) -> None:
        self.row: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self, stage: str) -> None:
        self.row[stage + "_s"] = time.perf_counter() - self.wall
        self.row[stage + "_cpu_s"] = time.process_time() - self.cpu
        self.restart()


def report(row: Row) -> None:
    """The measurement, for `fresh_process`."""
    print(MARK + json.dumps(row), flush=True)


# --- the measuring side ---


def make_peers(folder: Path, packages: Sequence[str]) -> None:
    """A virtual environment with the peers' packages."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *packages], check=True)


def busy_share(seconds: float = 0.5) -> float:
    """What share of the processor other programs take right now (Linux; 0 where /proc/stat is missing)."""
    if not Path("/proc/stat").exists():
        return 0.0

    def read() -> tuple[int, int]:
        fields = [int(v) for v in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return fields[3] + fields[4], sum(fields)

    idle, total = read()
    time.sleep(seconds)
    idle_after, total_after = read()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def engine_python(engine: str, peers: Path) -> str:
    """The interpreter that an engine runs in: this one for ours, the peers' for theirs."""
    return sys.executable if engine == "rustasr" else str(peers / "bin" / "python")


def fresh_process(script: str, python: str, spec: str, job: Row) -> Row:
    """The row that `script --job JOB` reports in a process of its own, or its error."""
    busy = busy_share()
    # One BLAS or OpenMP pool each would hide behind the engine's own thread count.
    environment = {**os.environ, "OMP_NUM_THREADS": str(job["threads"]), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, script, "--job", json.dumps(job)],
        env=environment, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        return {"spec": spec, "error": (done.stderr or done.stdout)[-600:]}
    return {"spec": spec, "busy_before": round(busy, 2), **json.loads(lines[-1][len(MARK) :])}


def in_turn(args: argparse.Namespace, run_once: Callable[[str], Row], meta: Row | None = None) -> list[Row]:
    """Rows of `args.rounds` rounds, each of which runs every engine of `args.engines` once."""
    rows = []
    for number in range(args.rounds):
        for spec in args.engines.split(","):
            row = run_once(spec)
            rows.append(row)
            if args.out:
                with args.out.open("a", encoding="utf-8") as out:
                    head = {"threads": args.threads, "round": number, **(meta or {})}
                    out.write(json.dumps({**head, **row}, ensure_ascii=False) + "\n")
            told = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items() if k != "text"}
            print(f"round {number + 1}: {told}", file=sys.stderr, flush=True)
    return rows


def table(rows: list[Row], columns: Sequence[str], cells: Callable[[list[Row]], Sequence[str]]) -> str:
    """A line for each engine: its name, and `cells` of its rows that went well. Markdown."""
    lines = ["| " + " | ".join(["engine", *columns]) + " |", "|---" + "|--:" * len(columns) + "|"]
    for spec in dict.fromkeys(row["spec"] for row in rows):
        good = [row for row in rows if row["spec"] == spec and "error" not in row]
        if good:
            lines.append("| " + " | ".join([spec, *cells(good)]) + " |")
            continue
        error = next(row["error"] for row in rows if row["spec"] == spec)
        lines.append(f"| {spec} | failed: {error[-80:]!r} |" + " |" * (len(columns) - 1))
    return "\n".join(lines)


def median(rows: list[Row], key: str) -> float:
    """Over the rows that have it; NaN where none does."""
    found = [row[key] for row in rows if key in row]
    return statistics.median(found) if found else float("nan")


def spread(rows: list[Row], key: str, digits: int = 2) -> str:
    """The median, and the range in brackets; empty where no row has it."""
    found = [row[key] for row in rows if key in row]
    if not found:
        return ""
    return f"{statistics.median(found):.{digits}f} ({min(found):.{digits}f}–{max(found):.{digits}f})"


def parser(doc: str | None, engines: str) -> argparse.ArgumentParser:
    """The options that every script has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--setup", type=Path, metavar="DIR", help="make the peers' environment and stop")
    made.add_argument("--job", help=argparse.SUPPRESS)
    made.add_argument("--peers", type=Path, help="virtual environment made by --setup")
    made.add_argument("--engines", default=engines)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--out", type=Path, help="append every measurement to this JSON-lines file")
    return made


__all__ = [
    "Clock", "Row", "busy_share", "engine_python", "fresh_process", "in_turn", "make_peers", "median",
    "parser", "peak_mb", "report", "spread", "table",
]  # fmt: skip
