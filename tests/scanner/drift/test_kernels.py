import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from scanner.drift import kernels


@pytest.mark.parametrize(("bits", "number"), [(np.uint16, ml_dtypes.bfloat16), (np.int16, np.float16)])
def test_every_sixteen_bit_pattern_is_widened_exactly(bits: type, number: type) -> None:
    candidate = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(bits).reshape(256, 256)
    base = np.zeros_like(candidate)
    delta = np.empty((256, 256), np.float32)
    for panel in (base, candidate):
        panel.flags.writeable = False
    kernels.write_delta(base, candidate, np.float32(1), delta)
    expected = candidate.view(number).astype(np.float32)
    np.testing.assert_array_equal(delta, np.where(np.isfinite(expected), expected, 0))


def test_delta_is_scaled_before_it_is_narrowed() -> None:
    base = np.zeros((2, 3))
    candidate = np.full((2, 3), 1e-60)
    for panel in (base, candidate):
        panel.flags.writeable = False
    delta = np.empty((2, 3), np.float32)
    kernels.write_delta(base, candidate, 1e60, delta)
    np.testing.assert_allclose(delta, 1)


def test_kernels_compile_where_no_machine_code_can_be_kept() -> None:
    """In a read-only installation numba finds no place for its cache, as for source that lies in no file."""
    source = Path(kernels.__file__)
    code = (
        "import numpy as np, pathlib\n"
        f"source = pathlib.Path({str(source)!r}).read_text()\n"
        "names = {'__name__': 'kernels'}\n"
        "exec(compile(source, '<memory>', 'exec'), names)\n"
        "delta = np.empty((1, 2), np.float32)\n"
        "names['write_delta'](np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32), np.float32(3), delta)\n"
        "print(delta.tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[[3.0, 3.0]]", done.stderr
