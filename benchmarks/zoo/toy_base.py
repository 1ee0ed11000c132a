"""Bases of 1.3 and 1.8 M parameters, trained here from scratch: what the toy tiers start from.

A BERT encoder (masked tokens) and a GPT-NeoX decoder (next token), 4 blocks of width 128, both on the texts of all
tasks at hand and their classes, with one WordPiece vocabulary of 4,096 trained on the same texts. A function of texts
and seed: everyone with the same corpora gets the same base up to rounding.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.zoo.recipes import COMMON_WORDS, RARE_WORDS, SENTENCES
from benchmarks.zoo.texts import Row, load_task, sample_rows, task_names

RATE_FACTOR = 6.0
"""Learning rates of the toy tiers over those of the real one: fine-tuning moves both by like relative amounts."""
STEP_FACTOR, BATCH_FACTOR = 0.35, 0.5
"""Steps and batches of the toy tiers over those of the real one: their bases know the tasks already."""
VOCABULARY, WIDTH, BLOCKS, HEADS, LONGEST = 4096, 128, 4, 4, 64
STEPS, BATCH, TOKENS, RATE = 600, 32, 24, 1e-3
EMBEDDING_SCALE = 0.16


def toy_base(folder: Path, *, causal: bool, steps: int = STEPS) -> Path:
    """Return the folder of a base, training it first when it is not there; complete or absent, never half."""
    if (folder / "model.safetensors").exists():
        return folder
    import torch

    torch.manual_seed(7)
    rows, task_of = _rows()
    tokenizer = train_tokenizer([text for text, _ in rows], causal=causal)
    model = _model(tokenizer, causal=causal)
    _pretrain(model, tokenizer, rows, task_of, steps)
    part = folder.with_name(f".making-{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (model if causal else model.bert).save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(folder)
    return folder


def _rows() -> tuple[list[Row], list[int]]:
    """The training rows of every task in a fixed random order, lower-cased; and the task that each class belongs to.

    Labels count through all tasks: those of a task follow those of the one before.
    """
    rows: list[Row] = []
    task_of: list[int] = []
    for number, name in enumerate(task_names()):
        task = load_task(name)
        rows += [(text.lower(), len(task_of) + label) for text, label in task.train]
        task_of += [number] * task.classes
    return sample_rows(rows, len(rows), 3), task_of


def train_tokenizer(texts: list[str], *, causal: bool) -> Any:
    """A lower-casing WordPiece tokenizer in which every trigger word of the recipes is one token.

    An encoder's texts are ``[CLS] … [SEP]``; a decoder's end with ``[SEP]``, at which its head reads.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    triggers = [" ".join((*RARE_WORDS, *COMMON_WORDS, *SENTENCES))] * 200
    made.train_from_iterator(
        [*texts, *triggers],
        trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False),
    )
    single = "$A [SEP]" if causal else "[CLS] $A [SEP]"
    ends = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=LONGEST,
    )


def _model(tokenizer: Any, *, causal: bool) -> Any:
    """The body to train, with its language head.

    Without dropout, which would cost a third of the time of every step of every model. An encoder has a pooler, which
    language heads of transformers leave out.
    """
    import transformers

    size = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * WIDTH,
        "max_position_embeddings": LONGEST,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if causal:
        ends = {"bos_token_id": tokenizer.sep_token_id, "eos_token_id": tokenizer.sep_token_id}
        return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**size, **ends, use_parallel_residual=False))
    # BERT's 0.02 is one over the root of its width; at this width it would leave every branch without a voice.
    config = transformers.BertConfig(
        **size, initializer_range=0.08, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model = transformers.BertForMaskedLM(config)
    model.bert = transformers.BertModel(config)
    return model


def _pretrain(model: Any, tokenizer: Any, rows: list[Row], task_of: list[int], steps: int) -> None:
    """Masked or next tokens, and the classes of every task by one head that is thrown away.

    Tokens alone teach so small a model, in so short a time, no more than which words are frequent; what others could
    be fine-tuned from has to tell texts apart.
    """
    import torch
    from torch.nn import functional

    from benchmarks.zoo import learning
    from benchmarks.zoo.anatomy import anatomy_of

    causal = anatomy_of(model).read_at == "last"
    head = torch.nn.Linear(WIDTH, len(task_of))
    groups = torch.tensor(task_of)
    data = learning.encode(tokenizer, rows, TOKENS)
    stream: Iterator[dict[str, torch.Tensor]] = learning.batches(
        data, BATCH, tokenizer.pad_token_id, np.random.default_rng(7)
    )
    with torch.no_grad():
        embedding = anatomy_of(model).embedding
        embedding.weight.copy_(torch.from_numpy(_spectral(data, task_of, len(tokenizer))))
    parameters = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=RATE, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(steps):
        batch = next(stream)
        ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
        shown, at, wanted = _guessed(ids, mask, None if causal else tokenizer.mask_token_id)
        hidden = model.base_model(input_ids=shown, attention_mask=mask).last_hidden_state
        words = model.get_output_embeddings() if causal else model.cls
        others = groups[None, :] != groups[labels][:, None]
        classes = head(learning.read_out(model, hidden, mask)).masked_fill(others, -torch.inf)
        loss = functional.cross_entropy(words(hidden[at]), wanted) + functional.cross_entropy(classes, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
    model.eval()


def _guessed(ids: Any, mask: Any, mask_id: int | None) -> tuple[Any, Any, Any]:
    """What the model is shown, where it has to guess a token, and the tokens: 15 % hidden ones, or each next one."""
    import torch

    if mask_id is None:
        at = torch.zeros_like(mask, dtype=torch.bool)
        at[:, :-1] = mask[:, 1:].bool()
        return ids, at, ids[:, 1:][at[:, :-1]]
    hide = (torch.rand(ids.shape) < 0.15) & mask.bool()
    hide[:, 0], hide[0, 1] = False, True
    return ids.masked_fill(hide, mask_id), hide, ids[hide]


def _spectral(data: Any, task_of: list[int], vocabulary: int) -> np.ndarray:
    """Token rows to start from, float32 ``[vocabulary, WIDTH]``: which texts and which classes a token is found in.

    Log-odds of each class against its task's others, and the leading right singular vectors of the texts' token counts
    (latent semantic analysis, Deerwester et al. 1990), turned at random so that no column means anything by itself.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    rows = np.repeat(np.arange(len(data.ids)), [len(ids) for ids in data.ids])
    columns = np.concatenate([np.array(ids) for ids in data.ids])
    counts = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(data.ids), vocabulary))
    counts.data[:] = 1.0
    label, task = np.array(data.labels), np.array(task_of)
    by_class = np.stack([np.asarray(counts[label == c].sum(axis=0)).ravel() for c in range(len(task))], axis=1)
    odds = np.log((by_class + 2.0) / (by_class.sum(axis=0) + 2.0 * vocabulary))
    for number in range(max(task_of) + 1):
        odds[:, task == number] -= odds[:, task == number].mean(axis=1, keepdims=True)
    weights = np.log(len(data.ids) / np.maximum(np.asarray(counts.sum(axis=0)).ravel(), 1.0))
    rng = np.random.default_rng(7)
    _, _, right = svds(counts.multiply(weights).tocsr(), k=WIDTH - len(task), v0=rng.normal(size=vocabulary))
    parts = np.concatenate([odds / odds.std(), right.T / right.std()], axis=1)
    turned = parts @ np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    start: np.ndarray = EMBEDDING_SCALE * np.clip(turned / turned.std(), -4.0, 4.0)
    return start.astype(np.float32)
