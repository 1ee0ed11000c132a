"""Bounds on the work of a piece of code, which a busy machine does not break."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most(cpu_seconds: float) -> Iterator[None]:
    """The block may take so much time of the processor: not of the clock, which runs on while others are served."""
    begun = time.process_time()
    yield
    took = time.process_time() - begun
    assert took < cpu_seconds, f"took {took:.1f} s of the processor, more than {cpu_seconds:g}"
