"""Cards taken apart: sentences, fields, headings, code; bounded whatever comes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.card.prose import MAX_SENTENCES, SEARCHED, read_prose

CARD = """---
license: mit
note: 7B parameters
---
# My *model*

<!-- 70B parameters, in a comment -->
It has [seven](https://x.y/z) parts. Each
of them is small; None is large.

1. First item
- **Context length:** `4096` tokens
| Params | 7B |
| a | b | c |

```yaml
lora_r: 16
# not a heading
```

Second title
============
After.
"""


def test_the_parts_of_a_card():
    prose = read_prose(CARD)
    assert prose.title == "My model"
    assert [title for _, title, _ in prose.headings] == ["My model", "Second title"]
    assert {"It has seven parts.", "Each of them is small;", "None is large.", "First item"} <= set(prose.sentences)
    assert prose.named("context length") == ("4096 tokens",)
    assert prose.named("params") == ("7B",)
    assert prose.named("lora r") == ("16",)
    assert "lora_r: 16" in prose.code
    assert "70B" not in prose.body
    assert "license" not in prose.body
    assert prose.headings[1][2] == "After."


@pytest.mark.parametrize("text", [None, "", "\ufeff", "---\n", "---\n---", "<!--", "```"])
def test_almost_nothing(text):
    assert read_prose(text).sentences in ((), ("---",), ("--- ---",))


def test_windows_line_ends():
    prose = read_prose("---\r\na: b\r\n---\r\n# Title\r\n\r\nOne.\r\n")
    assert (prose.title, prose.sentences[-1]) == ("Title", "One.")


@pytest.mark.parametrize(
    "piece",
    ["<!--", "[", "(", "[a](", "<a", "a: ", "| ", "- ", "# ", ". A", "\n\n", "``` ", "```\n", " ", "=", "1. ", "*"],
)
def test_long_cards_are_bounded(piece):
    """Linear in the searched length: a pattern that is not would take minutes here."""
    prose = read_prose(piece * (3 * SEARCHED // len(piece)))
    assert len(prose.sentences) <= MAX_SENTENCES
    assert len(prose.body) <= SEARCHED + 10


@given(st.text(alphabet="ab#*-|:=`<>![]().\n\r\u202e\u2028 1", max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_text_is_taken_apart(text):
    prose = read_prose(text)
    assert all(sentence.strip() for sentence in prose.sentences)
    assert all(name == name.lower() for name, _ in prose.fields)
