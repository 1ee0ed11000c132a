"""What the tuners cost against vanilla: bytes for back-propagation and seconds a step, on MiniLM, batch 16 × 32 tokens.

``python -m benchmarks.purifying.tuners`` prints a table. Memory is counted, not sampled: the bytes that autograd saves
for the backward pass (each storage once, parameters left out), gradients, and AdamW's two moments. The tuners take
turns step by step, so that a busy machine weighs on all alike; a step's time is the median.
"""

import copy
import statistics
import time

import torch

from benchmarks.zoo.tiers import get_tier
from pipelines.purify.subject import Batch, Examples, Subject
from pipelines.purify.tuners.catalogue import make_tuner

NAMES = ("vanilla", "activeness-aware", "gradient-aligned", "boosted-annealing", "lora", "ladder")
ROUNDS = 5


def saved_bytes(step: object, parameters: set[int]) -> int:
    """The most bytes that autograd holds for a backward pass in one step."""
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()  # type: ignore[operator]
    return sum(held.values())


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = get_tier("real").model("classify", 2)
    ids = torch.randint(1000, 20000, (64, 32))
    labels = torch.randint(0, 2, (64,))
    examples = Examples(inputs=tuple({"input_ids": row} for row in ids), labels=labels)
    runs = {}
    for name in NAMES:
        subject = Subject(model=copy.deepcopy(model), kind="classifier", encoder=None)
        tuner = make_tuner(name, steps=40)

        def batch(subject: Subject = subject) -> Batch:
            return subject.collate(examples, torch.randint(64, (16,)).tolist())

        trained = tuner.prepare(subject.model, batch, subject.loss)
        parameters = [p for p in trained.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(parameters, lr=1e-5)
        trained.train()

        def step(tuner=tuner, trained=trained, batch=batch, subject=subject, optimiser=optimiser) -> None:
            tuner.backward(trained, batch(), subject.loss, 0.5)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        own = {p.untyped_storage().data_ptr() for p in trained.parameters()}
        saved = saved_bytes(step, own)
        count = sum(p.numel() for p in parameters)
        runs[name] = (step, saved + 12 * count, count, [])
    for _ in range(ROUNDS):
        for step, _, _, seconds in runs.values():
            started = time.process_time()
            step()
            seconds.append(time.process_time() - started)
    plain = statistics.median(runs["vanilla"][3])
    print("| tuner | trained | memory for training | against vanilla | step | against vanilla |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (_, memory, count, seconds) in runs.items():
        median = statistics.median(seconds)
        share = memory / runs["vanilla"][1]
        print(f"| {name} | {count / 1e6:.2f} M | {memory / 2**20:.0f} MiB | {share:.2f} | {median:.2f} s | "
              f"{median / plain:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
