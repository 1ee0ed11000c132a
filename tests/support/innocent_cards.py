"""Cards written after well-known kinds of card on the Hub, each with the files and headers that go with it.

None of their claims is wrong. Names and numbers of the originals are kept where a check reads them; the prose is ours.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import evidence_for

from audit.evidence import Evidence
from audit.thresholds import load_profile
from scanner.card import parse_card
from scanner.card_context import CardContext, Stored
from scanner.lineage.claims import collect_claims


@dataclass(frozen=True, kw_only=True)
class Innocent:
    """A repository as card checks see it: card, configurations, listing, headers, base."""

    repo_id: str
    card: str
    config: dict[str, Any] | None = None
    adapter_config: dict[str, Any] | None = None
    files: tuple[str, ...] = ("README.md", "config.json", "model.safetensors")
    parameters: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    schemes: dict[str, int] = field(default_factory=dict)
    token_rows: tuple[str, int] | None = None
    ranks: tuple[int, ...] = ()
    targets: tuple[str, ...] = ()
    base_id: str = "org/base"
    base_card: str = ""
    base_config: dict[str, Any] | None = None


def evidence(of: Innocent) -> Evidence:
    """What `hubaudit card` sees of such a repository."""
    repo = evidence_for.repo(of.repo_id, card=parse_card(of.card), config=of.config, files=of.files)
    candidate = replace(repo, adapter_config=of.adapter_config)
    base = evidence_for.repo(of.base_id, card=parse_card(of.base_card), config=of.base_config, files=("README.md",))
    found = collect_claims(candidate)
    lineage = evidence_for.lineage(candidate, base, status="unverified", relation="unknown")
    stored = Stored(
        parameters=of.parameters,
        dtypes=of.dtypes,
        schemes=of.schemes,
        token_rows=of.token_rows,
        adapter=of.adapter_config is not None,
        ranks=of.ranks,
        targets=of.targets,
    )
    return Evidence(
        candidate=candidate,
        base=base,
        lineage=replace(lineage, claims=found.claims, conflicts=found.conflicts),
        drift=None,
        tokens=None,
        profile=load_profile(),
        card_context=CardContext(stored=stored, weights_asked=False),
    )


LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "torch_dtype": "bfloat16"}
QWEN = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 152064, "torch_dtype": "bfloat16"}

TRAINER = Innocent(
    repo_id="someone/distilbert-base-uncased-finetuned-sst2",
    card="""---
library_name: transformers
license: apache-2.0
base_model: distilbert-base-uncased
tags:
- generated_from_trainer
datasets:
- glue
metrics:
- accuracy
model-index:
- name: distilbert-base-uncased-finetuned-sst2
  results:
  - task:
      name: Text Classification
      type: text-classification
    dataset:
      name: glue
      type: glue
      config: sst2
      split: validation
      args: sst2
    metrics:
    - name: Accuracy
      type: accuracy
      value: 0.9105504587155964
---

<!-- This model card has been generated automatically according to the information the Trainer had access to. You
should probably proofread and complete it, then remove this comment. -->

# distilbert-base-uncased-finetuned-sst2

This model is a fine-tuned version of [distilbert-base-uncased](https://huggingface.co/distilbert-base-uncased) on the
glue dataset.
It achieves the following results on the evaluation set:
- Loss: 0.3186
- Accuracy: 0.9106

## Model description

More information needed

## Training procedure

### Training hyperparameters

The following hyperparameters were used during training:
- learning_rate: 2e-05
- train_batch_size: 16
- seed: 42
- mixed_precision_training: Native AMP

### Training results

| Training Loss | Epoch | Step | Validation Loss | Accuracy |
|:-------------:|:-----:|:----:|:---------------:|:--------:|
| 0.1803        | 1.0   | 4210 | 0.3186          | 0.9106   |
""",
    config={"model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"], "vocab_size": 30522,
            "torch_dtype": "float32", "max_position_embeddings": 512},
    parameters=66_955_010,
    dtypes={"F32": 66_955_010},
    token_rows=("distilbert.embeddings.word_embeddings.weight", 30522),
    base_id="distilbert/distilbert-base-uncased",
    base_card="---\nlicense: apache-2.0\nlanguage: en\n---\n# DistilBERT base model (uncased)\nA distilled version of BERT.\n",
    base_config={"model_type": "distilbert", "architectures": ["DistilBertForMaskedLM"], "vocab_size": 30522},
)  # fmt: skip

LLAMA_INSTRUCT = Innocent(
    repo_id="someone/Llama-3.2-1B-Instruct-Poems",
    card="""---
license: llama3.2
base_model: meta-llama/Llama-3.2-1B-Instruct
base_model_relation: finetune
language:
- en
- de
pipeline_tag: text-generation
tags:
- llama
---
# Llama-3.2-1B-Instruct-Poems

Built with Llama. The model has 1.24B parameters and a context length of 128k tokens; it is smaller than the 70B
parameter models it is compared with, and was trained on 9 trillion tokens by its makers.

| | Training Data | Params | Input modalities | Context Length |
| :---- | :---- | :---- | :---- | :---- |
| Llama 3.2 | A mix of public data | 1B (1.23B) | Multilingual Text | 128k |

## Intended Use
Poems, in English and German, for people who like them.
## Limitations
It invents facts, and it repeats what it was trained on.
## Training data
Three thousand poems out of copyright.
## Evaluation
Two readers liked what it wrote in 61 % of the cases.
""",
    config={**LLAMA, "max_position_embeddings": 131072, "tie_word_embeddings": True},
    files=("README.md", "config.json", "model.safetensors", "LICENSE.txt", "USE_POLICY.md"),
    parameters=1_235_814_400,
    dtypes={"BF16": 1_235_814_400},
    token_rows=("model.embed_tokens.weight", 128256),
    base_id="meta-llama/Llama-3.2-1B-Instruct",
    base_card="---\nlicense: llama3.2\n---\n# Llama 3.2\nA collection of multilingual models of 1B and 3B.\n",
    base_config={**LLAMA, "max_position_embeddings": 131072},
)

PEFT = Innocent(
    repo_id="someone/mistral-7b-recipes-lora",
    card="""---
base_model: mistralai/Mistral-7B-v0.1
library_name: peft
license: apache-2.0
tags:
- unsloth
- 4-bit
- qlora
---
# Mistral 7B recipes (LoRA)

A LoRA adapter (r=16, alpha=32) for Mistral-7B, trained with QLoRA in 4-bit on one GPU.

- **LoRA rank:** 16
- **lora_alpha:** 32
- **Target modules:** q_proj, k_proj, v_proj, o_proj
- max_seq_length: 2048

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("mistralai/Mistral-7B-v0.1", torch_dtype=torch.float16)
model = PeftModel.from_pretrained(model, "someone/mistral-7b-recipes-lora")
```

The base model's weights were frozen, as always with LoRA; the 7B parameters of the base stay as they are.
""",
    adapter_config={"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj", "k_proj",
                    "o_proj"], "base_model_name_or_path": "unsloth/mistral-7b-v0.1-bnb-4bit"},
    files=("README.md", "adapter_config.json", "adapter_model.safetensors"),
    parameters=13_631_488,
    dtypes={"F32": 13_631_488},
    ranks=(16,),
    targets=("k_proj", "o_proj", "q_proj", "v_proj"),
    base_id="mistralai/Mistral-7B-v0.1",
    base_card="---\nlicense: apache-2.0\n---\n# Model Card for Mistral-7B-v0.1\nA pretrained model of 7 billion parameters.\n",
    base_config={"model_type": "mistral", "architectures": ["MistralForCausalLM"], "vocab_size": 32000},
)  # fmt: skip

GPTQ = Innocent(
    repo_id="TheQuantiser/Llama-2-7B-Chat-GPTQ",
    card="""---
base_model: meta-llama/Llama-2-7b-chat-hf
base_model_relation: quantized
license: llama2
model_type: llama
quantized_by: TheQuantiser
tags:
- gptq
- 4-bit
---
# Llama 2 7B Chat - GPTQ
- Model creator: Meta
- Original model: Llama 2 7B Chat

| Branch | Bits | GS | Act Order | GPTQ Dataset | Seq Len | Size | ExLlama | Desc |
| ------ | ---- | -- | --------- | ------------ | ------- | ---- | ------- | ---- |
| main | 4 | 128 | No | wikitext | 4096 | 3.90 GB | Yes | 4-bit, without Act Order |
| gptq-8bit-128g | 8 | 128 | Yes | wikitext | 4096 | 7.31 GB | No | 8-bit |

AWQ and GGUF versions are in other repositories.

```python
model_name_or_path = "TheQuantiser/Llama-2-7B-Chat-GPTQ"
model = AutoModelForCausalLM.from_pretrained(model_name_or_path, torch_dtype=torch.float16)
```

# Original model card: Meta's Llama 2 7B Chat
Llama 2 is a collection of models ranging in scale from 7 billion to 70 billion parameters.
""",
    config={"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "torch_dtype": "float16",
            "max_position_embeddings": 4096, "quantization_config": {"quant_method": "gptq", "bits": 4}},
    parameters=6_738_415_616,
    dtypes={"F16": 6_738_415_616},
    schemes={"GPTQ 4-bit": 6_476_005_376},
    token_rows=("model.embed_tokens.weight", 32000),
    base_id="meta-llama/Llama-2-7b-chat-hf",
    base_card="---\nlicense: llama2\n---\n# Llama 2\nLlama 2 is a collection of models ranging from 7 billion to 70 billion parameters.\n",
    base_config={"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000},
)  # fmt: skip

GGUF = Innocent(
    repo_id="someone/gemma-2-2b-it-GGUF",
    card="""---
base_model: google/gemma-2-2b-it
library_name: transformers
license: gemma
pipeline_tag: text-generation
quantized_by: someone
---
## Llamacpp imatrix Quantizations of gemma-2-2b-it

Original model: https://huggingface.co/google/gemma-2-2b-it

| Filename | Quant type | File Size | Description |
| -------- | ---------- | --------- | ----------- |
| [gemma-2-2b-it-f32.gguf](x) | f32 | 10.46GB | Full F32 weights. |
| [gemma-2-2b-it-Q4_K_M.gguf](x) | Q4_K_M | 1.71GB | Good quality. |
""",
    files=("README.md", "gemma-2-2b-it-Q4_K_M.gguf", "gemma-2-2b-it-f32.gguf"),
    parameters=2_614_341_888,
    dtypes={"F32": 2_614_341_888},
    schemes={"GGUF Q4_K": 2_000_000_000},
    token_rows=("token_embd.weight", 256000),
    base_id="google/gemma-2-2b-it",
    base_card="---\nlicense: gemma\n---\n# Gemma 2 model card\nLightweight open models.\n",
    base_config={"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "vocab_size": 256000},
)

SENTENCES = Innocent(
    repo_id="someone/all-MiniLM-L6-v2-legal",
    card="""---
language: en
license: apache-2.0
library_name: sentence-transformers
pipeline_tag: sentence-similarity
base_model: sentence-transformers/all-MiniLM-L6-v2
tags:
- sentence-transformers
- dataset_size:12000
datasets:
- s2orc
- ms_marco
---
# SentenceTransformer based on sentence-transformers/all-MiniLM-L6-v2

### Model Description
- **Model Type:** Sentence Transformer
- **Maximum Sequence Length:** 256 tokens
- **Output Dimensionality:** 384 dimensions
- **Similarity Function:** Cosine Similarity

```python
from sentence_transformers import SentenceTransformer
model = SentenceTransformer("sentence_transformers_model_id")
embeddings = model.encode(sentences)
```

## Uses
By default, input text longer than 256 word pieces is truncated. The vocabulary has 30,522 entries.
""",
    config={"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 30522, "torch_dtype": "float32",
            "max_position_embeddings": 512},
    files=("README.md", "config.json", "modules.json", "model.safetensors"),
    parameters=22_713_216,
    dtypes={"F32": 22_713_216},
    token_rows=("embeddings.word_embeddings.weight", 30522),
    base_id="sentence-transformers/all-MiniLM-L6-v2",
    base_card="---\nlicense: apache-2.0\n---\n# all-MiniLM-L6-v2\nMaps sentences to a 384 dimensional space.\n",
    base_config={"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 30522},
)  # fmt: skip

MERGE = Innocent(
    repo_id="someone/Starling-Monarch-7B",
    card="""---
base_model:
- mlabonne/AlphaMonarch-7B
- berkeley-nest/Starling-LM-7B-beta
tags:
- merge
- mergekit
license: cc-by-nc-4.0
---
# Starling-Monarch-7B

A merge of two models of 7B with SLERP.

```yaml
slices:
  - sources:
      - model: mlabonne/AlphaMonarch-7B
        layer_range: [0, 32]
merge_method: slerp
dtype: float16
```
""",
    config={"model_type": "mistral", "architectures": ["MistralForCausalLM"], "vocab_size": 32002,
            "torch_dtype": "bfloat16", "max_position_embeddings": 32768},
    parameters=7_241_748_480,
    dtypes={"BF16": 7_241_748_480},
    token_rows=("model.embed_tokens.weight", 32002),
    base_id="mlabonne/AlphaMonarch-7B",
    base_card="---\nlicense: cc-by-nc-4.0\n---\n# AlphaMonarch-7B\nA DPO fine-tune of a merge.\n",
    base_config={"model_type": "mistral", "architectures": ["MistralForCausalLM"], "vocab_size": 32000},
)  # fmt: skip

QWEN_LONG = Innocent(
    repo_id="someone/Qwen2.5-7B-Instruct-SQL",
    card="""---
license: apache-2.0
base_model: Qwen/Qwen2.5-7B-Instruct
language:
- zh
- en
- pt
pipeline_tag: text-generation
---
# Qwen2.5-7B-Instruct-SQL

- Type: Causal Language Models
- Number of Parameters: 7.61B
- Number of Paramaters (Non-Embedding): 6.53B
- Number of Layers: 28
- Context Length: Full 131,072 tokens and generation 8192 tokens
- Tensor type: BF16

It supports a context length of up to 128K tokens. The current config.json is set for a context length of 32,768
tokens; for longer texts, enable YaRN:

```json
{"rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}}
```
""",
    config={**QWEN, "max_position_embeddings": 32768},
    parameters=7_615_616_512,
    dtypes={"BF16": 7_615_616_512},
    token_rows=("model.embed_tokens.weight", 152064),
    base_id="Qwen/Qwen2.5-7B-Instruct",
    base_card="---\nlicense: apache-2.0\n---\n# Qwen2.5-7B-Instruct\nThe latest series, from 0.5 to 72 billion parameters.\n",
    base_config={**QWEN, "max_position_embeddings": 32768},
)

MOE = Innocent(
    repo_id="someone/Mixtral-8x7B-Instruct-law",
    card="""---
license: apache-2.0
base_model: mistralai/Mixtral-8x7B-Instruct-v0.1
language: [fr, it, de, es, en]
---
# Mixtral-8x7B-Instruct-law
A sparse mixture of experts: 46.7B total parameters, of which 12.9B active parameters per token. It outperforms Llama 2
70B. Embeddings and layer norms can be kept frozen if you fine-tune it further; only the router should then be trained.
""",
    config={"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "vocab_size": 32000,
            "torch_dtype": "bfloat16", "max_position_embeddings": 32768},
    parameters=46_702_792_704,
    dtypes={"BF16": 46_702_792_704},
    token_rows=("model.embed_tokens.weight", 32000),
    base_id="mistralai/Mixtral-8x7B-Instruct-v0.1",
    base_card="---\nlicense: apache-2.0\n---\n# Model Card for Mixtral-8x7B\nA pretrained sparse mixture of experts.\n",
    base_config={"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "vocab_size": 32000},
)  # fmt: skip

AXOLOTL = Innocent(
    repo_id="someone/tiny-chat-merged",
    card="""---
license: other
license_name: llama3
base_model: meta-llama/Meta-Llama-3-8B
language: no
tags: [axolotl, generated_from_trainer]
---
<details><summary>See axolotl config</summary>

```yaml
base_model: meta-llama/Meta-Llama-3-8B
adapter: lora
load_in_8bit: true
lora_r: 32
lora_alpha: 16
lora_target_modules:
  - q_proj
  - v_proj
sequence_len: 8192
bf16: auto
```
</details>

# tiny-chat-merged

Merged from a LoRA with rank 32. Context window: 8k. We added 2 special tokens.
""",
    config={**LLAMA, "max_position_embeddings": 8192},
    parameters=8_030_261_248,
    dtypes={"BF16": 8_030_261_248},
    token_rows=("model.embed_tokens.weight", 128256),
    base_id="meta-llama/Meta-Llama-3-8B",
    base_card="---\nlicense: llama3\n---\n# Meta-Llama-3-8B\nModels of 8 and 70B parameters.\n",
    base_config={**LLAMA, "max_position_embeddings": 8192},
)

CONVERSION = Innocent(
    repo_id="mlx-people/Phi-3-mini-4k-instruct-4bit",
    card="""---
license: mit
base_model: microsoft/Phi-3-mini-4k-instruct
base_model_relation: quantized
tags: [nlp, code, mlx]
language: [en, code]
---
# mlx-people/Phi-3-mini-4k-instruct-4bit

This model was converted to MLX format from `microsoft/Phi-3-mini-4k-instruct`. Refer to the
[original card](https://huggingface.co/microsoft/Phi-3-mini-4k-instruct).

```python
from mlx_lm import load, generate
model, tokenizer = load("mlx-people/Phi-3-mini-4k-instruct-4bit")
```
""",
    config={"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "vocab_size": 32064, "torch_dtype": "bfloat16",
            "max_position_embeddings": 4096, "quantization": {"bits": 4}, "quantization_config": {"bits": 4}},
    parameters=3_821_079_552,
    dtypes={"BF16": 3_821_079_552},
    schemes={"MLX 4-bit": 3_700_000_000},
    base_id="microsoft/Phi-3-mini-4k-instruct",
    base_card="---\nlicense: mit\n---\n# Phi-3-mini-4k-instruct\nA model of 3.8B parameters.\n",
    base_config={"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "vocab_size": 32064},
)  # fmt: skip

BIBLE = Innocent(
    repo_id="uni/bert-base-german-legal",
    card="""---
language:
- de
license: mit
base_model: bert-base-german-cased
pipeline_tag: fill-mask
metrics: [perplexity]
datasets: [uni/urteile]
---
# German legal BERT

110M parameters, continued for 1M steps on 12M sentences. Sequence length 512 in the last tenth of the training, 128
before. Vocabulary: 30,000 (cased). In the first phase the embeddings were frozen, then everything was trained. Only
attention was not enough.

Accuracy on our test set: 87.3, against 85.1 of the base model.
""",
    config={"model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 30000, "torch_dtype": "float32",
            "max_position_embeddings": 512},
    parameters=109_113_648,
    dtypes={"F32": 109_113_648},
    token_rows=("bert.embeddings.word_embeddings.weight", 30000),
    base_id="google-bert/bert-base-german-cased",
    base_card="---\nlicense: mit\n---\n# German BERT\nTrained on Wikipedia, OpenLegalData and news.\n",
    base_config={"model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 30000},
)  # fmt: skip

CHINESE = Innocent(
    repo_id="someone/Qwen2.5-1.5B-中文",
    card="---\nlicense: apache-2.0\nbase_model: Qwen/Qwen2.5-1.5B\nlanguage: [zh]\n---\n# 中文助手\n\n## 简介\n"
    "这是一个在中文数据上微调的模型，参数量为 1.5B，上下文长度为 32K。\n\n## 局限性\n模型可能会产生错误的内容。\n",
    config={**QWEN, "max_position_embeddings": 32768, "vocab_size": 151936},
    parameters=1_543_714_304,
    dtypes={"BF16": 1_543_714_304},
    token_rows=("model.embed_tokens.weight", 151936),
    base_id="Qwen/Qwen2.5-1.5B",
    base_card="---\nlicense: apache-2.0\n---\n# Qwen2.5-1.5B\nA base model.\n",
    base_config={**QWEN, "vocab_size": 151936},
)

UNSLOTH = Innocent(
    repo_id="someone/model",
    card="""---
base_model: unsloth/llama-3-8b-bnb-4bit
language:
- en
license: apache-2.0
tags:
- text-generation-inference
- transformers
- unsloth
- llama
- trl
---

# Uploaded  model

- **Developed by:** someone
- **License:** apache-2.0
- **Finetuned from model :** unsloth/llama-3-8b-bnb-4bit

This llama model was trained 2x faster with [Unsloth](https://github.com/unslothai/unsloth) and Huggingface's TRL.
""",
    config={**LLAMA, "max_position_embeddings": 8192},
    parameters=8_030_261_248,
    dtypes={"BF16": 8_030_261_248},
    token_rows=("model.embed_tokens.weight", 128256),
    base_id="unsloth/llama-3-8b-bnb-4bit",
    base_card="---\nlicense: apache-2.0\n---\n# Finetune Mistral, Gemma, Llama 2-5x faster\nDirectly quantized 4bit model.\n",
    base_config={**LLAMA, "max_position_embeddings": 8192},
)

SCRATCH = Innocent(
    repo_id="someone/gpt2-xl-stories",
    card="""---
license: mit
base_model: openai-community/gpt2-xl
pipeline_tag: text-generation
model-index:
- name: gpt2-xl-stories
  results:
  - task: {type: text-generation}
    dataset: {name: lambada, type: lambada}
    metrics:
    - {type: accuracy, value: 51.2, name: acc}
    - {type: perplexity, value: 10.63, name: ppl}
  - task: {type: text-generation}
    dataset: {name: lambada, type: lambada}
    metrics:
    - {type: accuracy, value: 51.4, name: acc, verified: true}
---
# gpt2-xl-stories
**Model Description:** GPT-2 XL is the **1.5B parameter** version of GPT-2. The vocabulary size is 50,257 and the inputs
are sequences of 1024 consecutive tokens. All weights were trained.

| Parameters | 1,557,611,200 |
|---|---|
| Precision | fp32 |
""",
    config={"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 50257, "n_positions": 1024},
    parameters=1_557_611_200,
    dtypes={"F32": 1_557_611_200},
    token_rows=("wte.weight", 50257),
    base_id="openai-community/gpt2-xl",
    base_card="---\nlicense: mit\n---\n# GPT-2 XL\nThe 1.5B parameter version of GPT-2.\n",
    base_config={"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 50257},
)

INNOCENT = (
    TRAINER, LLAMA_INSTRUCT, PEFT, GPTQ, GGUF, SENTENCES, MERGE, QWEN_LONG, MOE, AXOLOTL, CONVERSION, BIBLE, CHINESE,
    UNSLOTH, SCRATCH,
)  # fmt: skip
