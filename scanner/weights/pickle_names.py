"""What is known of PyTorch checkpoints by their names alone, without importing torch."""

from typing import Final

PYTORCH: Final = "pytorch_model.bin"
PYTORCH_INDEX: Final = "pytorch_model.bin.index.json"
ADAPTER_BIN: Final = "adapter_model.bin"
SUFFIXES: Final = (".bin", ".pt", ".pth")


def is_pickled(path: str) -> bool:
    """Whether the name is that of a PyTorch checkpoint."""
    return path.endswith(SUFFIXES)
