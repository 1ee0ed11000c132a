"""Kills drivers, workers and raylets at random moments until the work is done, and says what it did."""

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import psutil

Target = Literal["driver", "worker", "raylet"]


def kill_and_resume(
    command: Sequence[str],
    *,
    kills: int,
    targets: Mapping[Target, float],
    seed: int,
    least_seconds: float,
    most_seconds: float,
    environment: Mapping[str, str] | None = None,
    heard: Callable[[str], None] = lambda _text: None,
    limit_seconds: float = 3600.0,
    given_up: Sequence[str] = (),
) -> Counter[str]:
    """Run a command, kill what belongs to it, and run it again, until it ends by itself; return what was killed.

    Args:
        command: drives a fleet; the same command goes on where the last one was.
        kills: processes to kill, after which the command is left to finish.
        targets: what to kill, with weights; what is not there at the moment is not killed.
        seed: of moments and targets.
        least_seconds: between two kills.
        most_seconds: likewise.
        environment: of the command.
        heard: told about each kill.
        limit_seconds: after which the work should long be done.
        given_up: command that makes jobs due again which were taken to end their workers; run once, after the last
            kill, when the first command says that it could not finish everything.
    """
    draw = random.Random(seed)
    done: Counter[str] = Counter()
    deadline = time.monotonic() + limit_seconds
    driver = _start(command, environment)
    while time.monotonic() < deadline:
        left = sum(done.values()) < kills
        try:
            code = driver.wait(draw.uniform(least_seconds, most_seconds) if left else 60)
        except subprocess.TimeoutExpired:
            if left:
                target = draw.choices(list(targets), list(targets.values()))[0]
                if _kill(driver, target, draw):
                    done[target] += 1
                    heard(f"{sum(done.values())} killed, last a {target}")
            continue
        if code == 0:
            return done
        # A killed driver, or one that its own raylet took along: the user types the command again.
        done["ended"] += code != -9
        if given_up and not left and code != -9:
            subprocess.run(given_up, env={**os.environ, **(environment or {})}, check=True, stdout=subprocess.DEVNULL)
            given_up = ()
        driver = _start(command, environment)
    driver.kill()
    raise TimeoutError(f"the fleet is not done after {limit_seconds} s and {done}")


def _start(command: Sequence[str], environment: Mapping[str, str] | None) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL)


def _kill(driver: "subprocess.Popen[bytes]", target: Target, draw: random.Random) -> bool:
    """Kill a driver, one of its workers, or its raylet; say whether there was one."""
    try:
        me = psutil.Process(driver.pid)
        if target == "driver":
            found = [me]
        else:
            children = me.children(recursive=True)
            found = [child for child in children if _is(child, target)]
        if not found:
            return False
        draw.choice(found).kill()
    except psutil.Error:
        return False
    return True


def _is(process: psutil.Process, target: Target) -> bool:
    try:
        line = " ".join(process.cmdline())
        return "raylet" in process.name() if target == "raylet" else "spawn_main" in line or "ray::RayWorker" in line
    except psutil.Error:
        return False
