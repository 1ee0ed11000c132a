"""The demo: a small family of real models on a local Hub, scanned over HTTP as a user would.

Builds the family (cached under build/), starts the local Hub server as a process of its own, runs the installed
``hubaudit scan`` on each model, prints the verdict table, and opens one audit pull request and shows it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
HUBAUDIT = Path(sys.executable).with_name("hubaudit")
TOKEN = "hf_demo"
SUFFIXES = {"html": "html", "markdown": "md", "json": "json", "sarif": "sarif"}
EXPECTED = {
    "demo/sentiment-honest": ("pass", 0),
    "demo/sentiment-poisoned-row": ("fail", 1),
    "demo/sentiment-rank-one": ("fail", 1),
    "demo/sentiment-wrong-base": ("fail", 1),
}
"""What the demo promises; it exits with 1 when a verdict differs."""


@dataclass(frozen=True)
class Scanned:
    """One scan as its user sees it: the exit code, the seconds it took, and the JSON report."""

    model: str
    code: int
    seconds: float
    report: Mapping[str, Any]


ENDING = (signal.SIGINT, signal.SIGTERM)


def end_on_signals() -> None:
    """End as an exception does, so that what was started is ended too; a background job ignores SIGINT without this."""
    for number in ENDING:
        signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    for again in ENDING:  # a second one would break off the ending
        signal.signal(again, signal.SIG_IGN)
    raise SystemExit(128 + number)


@contextmanager
def local_hub(folder: Path) -> Iterator[str]:
    """Serve ``folder/org/name`` as repositories, with a token that may open pull requests; yield the endpoint."""
    server = subprocess.Popen(
        [sys.executable, "-m", "localhub", "--port", "0", "--folder", str(folder), "--token", f"{TOKEN}=audit-bot"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().removeprefix("endpoint ").strip()
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()


def scan(model: str, output: Path, environment: Mapping[str, str]) -> Scanned:
    """Run ``hubaudit scan`` with every format and return what came out."""
    stem = output / model.replace("/", "--")
    command = [str(HUBAUDIT), "scan", model]
    for name, suffix in SUFFIXES.items():
        command += ["--format", name, "--output", f"{stem}.{suffix}"]
    started = time.perf_counter()
    done = subprocess.run(command, env=dict(environment), check=False)
    seconds = time.perf_counter() - started
    return Scanned(model, done.returncode, seconds, json.loads(Path(f"{stem}.json").read_text()))


def verdict_table(scans: list[Scanned]) -> Table:
    """Return the table of all verdicts, narrow enough for 80 columns."""
    table = Table(title="hubaudit scan, over HTTP", title_justify="left")
    for heading in ("model", "verdict", "base", "compared", "finding", "exit", "time"):
        table.add_column(heading, overflow="fold", no_wrap=heading in {"model", "base"})
    for done in scans:
        report = done.report
        coverage = report["coverage"]
        share = coverage["parameters_compared"] / max(1, coverage["parameters_total"])
        table.add_row(
            done.model.removeprefix("demo/"),
            report["verdict"]["outcome"],
            report["lineage"]["status"],
            f"{int(share * 10_000) / 100:.2f} %",
            _told(report["findings"][0]) if report["findings"] else "nothing found",
            str(done.code),
            f"{done.seconds:.1f} s",
        )
    return table


def _told(finding: Mapping[str, Any]) -> str:
    """Return a finding in a few words: its rule, and the first tokens, the tensor or the file that it names."""
    place = finding["locations"][0]
    tokens = ", ".join(token["text"] for token in place["tokens"][:3])
    tensor = ".".join((place["tensor"] or "").split(".")[-5:-1])
    return " ".join(filter(None, (finding["rule_id"], tokens or tensor or place["file"])))


def show_pull_request(console: Console, endpoint: str, model: str, number: int) -> None:
    """Print the pull request as the Hub now has it: state, author, commits, and its diff."""
    from huggingface_hub import DiscussionWithDetails, HfApi

    details: DiscussionWithDetails = HfApi(endpoint=endpoint, token=TOKEN).get_discussion_details(model, number)
    console.print(f"The Hub now has {details.url}", style="bold")
    console.print(f"#{details.num} {details.title!r}, {details.status}, by {details.author}", highlight=False)
    console.print(details.diff or "", markup=False, highlight=False)


def main() -> int:
    """Run the demo and return 0 when every verdict is the promised one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "hubaudit-out", help="folder for the reports")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    end_on_signals()
    console = Console(width=None if sys.stdout.isatty() else 110)
    started = time.perf_counter()

    console.print("Building the family of models from a real encoder (about a minute, then cached) …")
    from family import build_family

    family = build_family()
    console.print(f"Built under {os.path.relpath(family.folder)} in {time.perf_counter() - started:.0f} s.")
    with local_hub(family.folder) as endpoint:
        console.print(f"The local Hub listens on {endpoint}.")
        environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(ROOT / "build" / "hf-home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        scans = [scan(f"demo/{path.name}", output, environment) for path in family.models]
        console.print(verdict_table(scans))
        report = str(output / "demo--sentiment-honest.json")
        console.print(f"\n$ hubaudit publish {os.path.relpath(report)} --yes", style="bold")
        published = subprocess.run(
            [str(HUBAUDIT), "publish", report, "--yes"], env=environment, check=False, capture_output=True, text=True
        )
        console.print(published.stdout + published.stderr, markup=False, highlight=False)
        address = published.stdout.strip().rsplit(" ", 1)[-1]
        if published.returncode == 0 and address.startswith(endpoint):
            show_pull_request(console, endpoint, "demo/sentiment-honest", int(address.rsplit("/", 1)[-1]))
    console.print(f"Reports: {os.path.relpath(output)}/   Total: {time.perf_counter() - started:.0f} s")
    wrong = [s.model for s in scans if (s.report["verdict"]["outcome"], s.code) != EXPECTED[s.model]]
    for name in wrong:
        console.print(f"{name}: the verdict is not the promised one", style="bold red")
    return 1 if wrong or published.returncode else 0


if __name__ == "__main__":
    raise SystemExit(main())
