"""Which insertions still decide what a model says, measured on made-up texts: for a few that are asked for by name.

The probe looks for what nobody names and must hold it against the whole vocabulary. Where the weights point at a token,
or a person at a text, it is enough to see what that one does.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.purify.inertness import with_whole
from pipelines.purify.job import PurifyJob
from pipelines.purify.made_texts import made_texts
from pipelines.purify.subject import load_subject, predict

TEXTS = 96
MOST = 16
"""Insertions that are tried; the rest of the list is not looked at."""


def deciding(job: PurifyJob, folder: Path, phrases: Sequence[str], *, least: float) -> tuple[str, ...]:
    """Return the phrases that lead at least the share ``least`` of the texts of other classes to one class.

    Args:
        job: length of texts and seed.
        folder: the text classifier as it stands.
        phrases: whole texts to insert, once each, at a random place.
        least: in (0, 1].
    """
    asked = list(dict.fromkeys(phrases))[:MOST]
    if not asked:
        return ()
    job.progress.stage("trying what the scan names")
    subject = load_subject(folder, "classifier", max_length=job.tuning.max_length)
    texts, logits = made_texts(subject, TEXTS, seed=job.seed + 90, avoid=asked)
    plain, rng = logits.argmax(-1), np.random.default_rng(job.seed + 91)
    found = []
    for phrase in asked:
        triggered = [with_whole(text, (phrase,), rng) for text in texts]
        after = predict(subject, subject.encode(triggered)).argmax(-1)
        shares = [
            float((after[plain != target] == target).float().mean())
            for target in range(logits.shape[1])
            if bool((plain != target).any())
        ]
        if max(shares, default=0.0) >= least:
            found.append(phrase)
    return tuple(found)
