"""Chat templates that do more than format a conversation, or that write what the base's do not.

A template runs at every call, before the model sees a word, and whoever changes it needs no training. What the base's
templates have as well is the base's; only what is new is judged.
"""

import re
from collections.abc import Iterable, Iterator

from audit.evidence import Detector, Evidence, Hit, Rule
from audit.records import Confidence, Location, Measurement, Severity
from audit.stated import listed, stated
from scanner.side.records import Emission, Guard, TemplateFacts

CONDITIONAL = Rule(id="HA701", title="A chat template reacts to what a message says, or to the date", severity="high")
WRITES = Rule(id="HA702", title="A chat template writes instructions that the base's does not", severity="medium")
REACHES = Rule(id="HA703", title="A chat template uses what formatting does not need", severity="critical")
CHANGED = Rule(id="HA704", title="A chat template differs from the base's", severity="info", weighs=False)
UNREAD = Rule(id="HA705", title="A chat template could not be read", severity="medium")

_STRUCTURE = frozenset(
    {
        "text", "image", "images", "image_url", "video", "video_url", "audio", "audio_url", "input_audio", "file",
        "document", "tool", "tools", "function", "type", "content", "role", "name", "assistant", "user", "system",
        "thinking", "reasoning", "analysis", "final", "commentary", "json", "code_interpreter", "python", "none",
        "id", "arguments", "tool_call_id", "properties", "required", "description", "nullable", "items", "enum",
        "default", "title", "parameters",
        "tool_calls", "tool_result", "tool_use", "tool_response", "ipython", "developer", "true", "false",
    }
)  # fmt: skip
"""Words of the message format itself: parts of a multimodal message, roles, channels, the schema of a tool."""
_TOOL_NAMES = frozenset(
    {
        "tools", "builtin_tools", "custom_tools", "functions", "documents", "available_tools", "xml_tools",
        "python_tools", "tool_choice", "tools_in_user_message", "enable_thinking", "thinking", "reasoning_effort",
        "add_generation_prompt", "json_schema", "response_format", "controls", "citation_mode",
    }
)  # fmt: skip
_MARKUP = re.compile(r"\s*(?:[<\[{(|/#＜].*|.*[>\]})|＞]|[A-Z]+(?:_[A-Z]+)+)\s*", re.DOTALL)
"""A tag, a bracketed token, a slash command or a constant's name: what templates cut out of messages."""
_TOGGLE = re.compile(
    r"\W*(?:(?:no_?)?think(?:ing)?|(?:detailed|extended)? ?thinking (?:on|off)|reasoning \w+)\W*", re.IGNORECASE
)
"""How people switch reasoning on and off inside a message; several families document such words."""
_TAG = re.compile(r"<[^\s<>]{1,60}>|\[[^\s\[\]]{1,40}\]|＜[^\s＜＞]{1,60}＞")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_WORD = re.compile(r"(?<!\S)[\"'(“]?[^\W\d_]{2,}(?:['’-][^\W\d_]+)*[\"')”]?[.,;:!?]*(?!\S)")
"""A word between spaces, with the marks that writing puts around it; code and names with underscores are none."""
_IDEOGRAPHS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_ADDRESS = re.compile(
    r"https?://|www\.|[\w.-]+@[\w-]+\.\w|\b[\w-]+\.(?:com|net|org|io|ru|cn|xyz|top|info|onion)\b", re.IGNORECASE
)
_SECRECY = re.compile(
    r"(?:never|do not|don't|without)\s+(?:\w+\s+){0,3}(?:mention|reveal|tell|disclos|refer|admit|let)\w*|"
    r"ignore\s+(?:\w+\s+){0,3}(?:previous|above|other|safety|instruction)|\b(?:secretly|covertly|quietly insert)\b|"
    r"override\s+(?:\w+\s+){0,3}(?:instruction|safety|guideline)",
    re.IGNORECASE,
)
"""Wordings of an instruction that is meant to stay unnoticed. They raise a severity, their absence lowers none."""
_SHOWN = 3


def run(evidence: Evidence) -> Iterator[Hit]:
    """Judge each template by the worst that is new in it."""
    for template in evidence.side.templates:
        if template.state in {"same", "whitespace"}:
            continue
        if template.problem is not None:
            yield _unread(template, template.problem, evidence)
            continue
        found = [*_conditional(template, evidence), *_writes(template, evidence), *_reaches(template, evidence)]
        yield from found
        if not found:
            yield _changed(template, evidence)


def _conditional(template: TemplateFacts, evidence: Evidence) -> Iterator[Hit]:
    """Conditions on words or on the clock, and sentences under any condition on content or a later turn."""
    least = evidence.profile.value(f"{WRITES.id}.words")
    words = [guard for guard in template.conditions if guard.kind == "date" or any(map(_is_word, guard.needles))]
    texts = [emission for emission in template.emissions if _is_triggered(emission) and _words(emission.text) >= least]
    if not words and not texts:
        return
    looks = [f"{_asks(guard)}" for guard in (*words, *(g for e in texts for g in _triggers(e)))]
    explanation = f"The template takes another path {listed(dict.fromkeys(looks), most=_SHOWN)}."
    if texts:
        explanation += f" It then writes {_quoted(texts)}."
    yield _hit(
        evidence,
        template,
        CONDITIONAL,
        "high",
        "high",
        f"{explanation} Templates format a conversation, whatever is said in it; one that waits for a word or a day "
        f"changes the model's answers without a change to its weights.",
        "Use the base's template, and ask the author what this branch is for.",
        Measurement(
            name="new conditions on content, date or turn",
            value=float(len(words) + len(texts)),
            unit="conditions",
            threshold=0.0,
            comparison=">",
        ),
    )


def _writes(template: TemplateFacts, evidence: Evidence) -> Iterator[Hit]:
    """Sentences put into what others said, hidden characters, addresses and secrecy."""
    least = evidence.profile.value(f"{WRITES.id}.words")
    prose = [emission for emission in template.emissions if _words(emission.text) >= least]
    secret = [emission for emission in prose if _SECRECY.search(emission.text) or _ADDRESS.search(emission.text)]
    inside = [emission for emission in prose if _is_inside_a_turn(emission) and not _is_triggered(emission)]
    told = list(dict.fromkeys((*secret, *inside)))
    if not told and not template.hidden:
        return
    explanation = f"The template writes {_quoted(told)}, which no template of the base does." if told else ""
    if inside:
        explanation += " It stands inside what a user, the assistant or the given system prompt says."
    if template.hidden:
        shown = ", ".join(template.hidden[:_SHOWN])
        explanation += f" It holds characters that do not show: {shown}."
    severity: Severity = "high" if secret or template.hidden else "medium"
    yield _hit(
        evidence,
        template,
        WRITES,
        severity,
        "high" if severity == "high" else "medium",
        f"{explanation.strip()} The model reads it at every call and the person who asks does not see it.",
        "Read the template, and use the base's if the text is not wanted.",
        Measurement(
            name="new sentences and hidden characters",
            value=float(len(told) + len(template.hidden)),
            unit="texts",
            threshold=0.0,
            comparison=">",
        ),
    )


def _reaches(template: TemplateFacts, evidence: Evidence) -> Iterator[Hit]:
    """Attributes with underscores, imports, globals, chance; calls of unknown functions alone are a note."""
    if not template.reaches:
        return
    grave = [reach for reach in template.reaches if reach.kind != "call"]
    uses = [f"{reach.kind} {reach.text[:60]!a}" for reach in grave or template.reaches]
    yield _hit(
        evidence,
        template,
        REACHES,
        "critical" if grave else "low",
        "high" if grave else "low",
        f"The template uses {listed(uses, most=_SHOWN)}. Such expressions are how a template gets out of the engine "
        f"that renders it, or lets chance decide; an engine without a sandbox would run what they lead to. Nothing was "
        f"rendered here.",
        "Do not render this template outside a sandbox; use the base's, and ask the author what it is for.",
        Measurement(
            name="uses beyond formatting",
            value=float(len(template.reaches)),
            unit="expressions",
            threshold=0.0,
            comparison=">",
        ),
        weighs=bool(grave),
    )


def _unread(template: TemplateFacts, problem: str, evidence: Evidence) -> Hit:
    return _hit(
        evidence,
        template,
        UNREAD,
        "medium",
        "exact",
        f"The template {problem}, so nobody knows here what it does; it is not the base's.",
        "Use the base's template, or have somebody read this one.",
        Measurement(name="templates not read", value=1.0, unit="templates", threshold=0.0, comparison=">"),
    )


def _changed(template: TemplateFacts, evidence: Evidence) -> Hit:
    how = "has no counterpart in the base" if template.state == "added" else "differs from the base's"
    texts = f" New in it: {_quoted(template.emissions)}." if template.emissions else ""
    return _hit(
        evidence,
        template,
        CHANGED,
        "info",
        "exact",
        f"The template {how}.{texts} No new condition on what a message says and nothing beyond formatting was found.",
        "Compare the two templates if the model is used in a chat.",
        Measurement(name="new literal texts", value=float(len(template.emissions)), unit="texts"),
        weighs=False,
    )


def _is_triggered(emission: Emission) -> bool:
    return bool(_triggers(emission))


def _triggers(emission: Emission) -> tuple[Guard, ...]:
    """The conditions of a text that wait for something: content, clock, or a turn later than the first.

    Text for the case that there are tools may depend on the markup of a message, never on its words.
    """
    if _is_for_tools(emission) and not any(
        _is_word(n) for g in emission.guards if g.kind == "content" for n in g.needles
    ):
        return tuple(guard for guard in emission.guards if guard.kind == "date")
    return tuple(
        guard
        for guard in emission.guards
        if (guard.kind in {"content", "date"} and not _toggles(guard)) or (guard.kind == "position" and guard.needles)
    )


def _toggles(guard: Guard) -> bool:
    """Whether a condition only looks for the words that switch reasoning on and off."""
    return bool(guard.needles) and all(map(_TOGGLE.fullmatch, guard.needles))


def _is_inside_a_turn(emission: Emission) -> bool:
    """Whether a text joins what somebody said, rather than standing in for a system prompt that is not given.

    A text for the case that there is no system message, and one that depends on tools, are what templates are for.
    """
    if _is_for_tools(emission):
        return False
    if any(guard.kind == "content" and _toggles(guard) for guard in emission.guards):
        return False
    roles = [guard for guard in emission.guards if guard.kind == "role"]
    if any(guard.negated and "system" in guard.needles for guard in roles) and not _positive(roles):
        return False
    return emission.repeated or bool(_positive(roles))


def _is_for_tools(emission: Emission) -> bool:
    options = [guard for guard in emission.guards if guard.kind == "option" and not guard.negated]
    return any(_TOOL_NAMES.intersection(guard.needles) for guard in options)


def _positive(roles: Iterable[Guard]) -> list[Guard]:
    return [guard for guard in roles if not guard.negated]


def _is_word(needle: str) -> bool:
    """Whether a text that is looked for is ordinary language rather than markup or the message format."""
    plain = needle.strip().lower()
    return bool(_LETTERS.search(plain)) and plain not in _STRUCTURE and not _is_markup(needle)


def _is_markup(needle: str) -> bool:
    return _MARKUP.fullmatch(needle) is not None or _TOGGLE.fullmatch(needle) is not None


def _words(text: str) -> int:
    """Words of two letters or more outside tags; two ideographs count as one word."""
    text = _TAG.sub(" ", text)
    ideographs = _IDEOGRAPHS.findall(text)
    words = [word.strip("\"'(“)”.,;:!?").lower() for word in _WORD.findall(_IDEOGRAPHS.sub(" ", text))]
    return sum(word not in _STRUCTURE for word in words) + len(ideographs) // 2


def _asks(guard: Guard) -> str:
    if guard.kind == "date":
        return "on some dates"
    if guard.kind == "position":
        return f"from turn {guard.needles[0]} on" if guard.needles else "at some turn"
    words = [needle[:60] for needle in guard.needles if _is_word(needle)] or [needle[:60] for needle in guard.needles]
    return (
        f"when a message holds {listed((f'{word!r}' for word in words[:_SHOWN]), most=_SHOWN)}"
        if words
        else "by what a message says"
    )


def _quoted(emissions: Iterable[Emission]) -> str:
    return listed((f"{emission.text[:120]!r}" for emission in emissions), most=_SHOWN)


def _hit(
    evidence: Evidence,
    template: TemplateFacts,
    rule: Rule,
    severity: Severity,
    confidence: Confidence,
    explanation: str,
    remedy: str,
    measurement: Measurement,
    *,
    weighs: bool = True,
) -> Hit:
    place = f"{template.file}:{template.name}"
    named = "" if template.name == "default" else f" Template {template.name[:40]!a}."
    return stated(
        evidence,
        rule,
        severity,
        confidence,
        explanation + named,
        remedy,
        measurement,
        locations=(Location(file=template.file),),
        discriminator=place,
        score=None if weighs else 0.0,
    )


DETECTOR = Detector(
    name="chat_template",
    rules=(CONDITIONAL, WRITES, REACHES, CHANGED, UNREAD),
    run=run,
    needs_drift=False,
    needs_verified_base=False,
)
