"""The section of ``docs/benchmarks.md`` about pictures and heads: ``python -m benchmarks.zoo.vision_page``."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from audit.readings import FAIL_SCORE, REVIEW_SCORE, score_of
from audit.thresholds import Profile, load_profile
from benchmarks.calibration.fit import tail_point
from benchmarks.calibration.rates import auroc, bootstrap, said
from benchmarks.pages import splice
from benchmarks.zoo import heads, vision

BEGIN, END = "<!-- vision:begin -->", "<!-- vision:end -->"
PAGE: Final = vision.ROOT / "docs" / "benchmarks.md"
Line = Mapping[str, Any]


def score(line: Line, profile: Profile) -> tuple[float, str]:
    """The largest score of a model under a profile's thresholds, and the rule that gave it."""
    scores = {
        rule: score_of(value, review=profile.value(f"{rule}.review"), fail=profile.value(f"{rule}.fail"))
        for rule, value in line["values"].items()
        if f"{rule}.review" in profile.values
    }
    scores |= {rule: profile.values.get(f"{rule}.score", 0.0) for rule in line["exact"]}
    if not scores:
        return 0.0, ""
    rule = max(scores, key=lambda name: scores[name])
    return scores[rule], rule


def section(pictures: Sequence[Line], continued: Sequence[Line]) -> str:
    """The section as Markdown, between its markers."""
    parts = [BEGIN, *_pictures(pictures, load_profile()), *_heads(continued, load_profile()), END, ""]
    return "\n".join(parts)


def _pictures(lines: Sequence[Line], profile: Profile) -> list[str]:
    clean = [line for line in lines if line["kind"] == "clean" and line["useful"]]
    told = [score(line, profile) for line in clean]
    judged = [value for value, _ in told]
    alarms = [rule for value, rule in told if value >= REVIEW_SCORE]
    out = [
        "## A small vision model",
        "",
        "Made by `python -m benchmarks.zoo.vision`: a vision transformer (64 wide, 4 layers) that learnt to tell",
        "turned digits apart is fine-tuned to read them, honestly or with a white patch of 3 by 3 pixels in the data",
        "(BadNets), or edited afterwards. Rules and thresholds are those that ship, set on an encoder of texts; none",
        "was fitted on pictures. *Works*: the patch turns 40 points more of the other pictures to the target than are",
        "called so without it. *Located*: the rule with the largest score names a tensor that was edited.",
        "",
        f"Honest fine-tunes that were reviewed or failed: {said(len(alarms), len(clean))}"
        + (f", by {_counted(alarms)}." if alarms else "."),
        "Thresholds that are carried over to another kind of model have no error rate of their own there.",
        "Of the first 31, six had passed for noise: HA404 has asked for 96 rows and columns since, and judges none.",
        "",
        "| family | works | n | reviewed or failed | failed | AUROC against honest (95 %) | located | rules |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, bool], list[Line]] = {}
    for line in lines:
        if line["kind"] == "attacked":
            groups.setdefault((line["family"], line["working"]), []).append(line)
    for (family, works), members in sorted(groups.items(), key=lambda g: (not g[0][1], g[0][0])):
        scores = [score(line, profile) for line in members]
        values = [value for value, _ in scores]
        low, high = bootstrap(auroc, judged, values)
        named = [line["places"].get(rule) in line["tensors"] for line, (_, rule) in zip(members, scores, strict=True)]
        fired = [rule for value, rule in scores if value >= REVIEW_SCORE]
        out.append(
            f"| {family} | {'yes' if works else 'no'} | {len(members)} | {said(len(fired), len(members))} | "
            f"{sum(v >= FAIL_SCORE for v in values)} | {auroc(judged, values):.2f} ({low:.2f} to {high:.2f}) | "
            f"{sum(named) if members[0]['tensors'] else '–'} | {_counted(fired) or '–'} |"
        )
    return [*out, ""]


def _counted(rules: Sequence[str]) -> str:
    return ", ".join(f"{rule} ×{rules.count(rule)}" for rule in sorted(set(rules)))


def _heads(lines: Sequence[Line], profile: Profile) -> list[str]:
    review = profile.value("HA503.review")
    out = [
        "## Heads that were trained further (HA503)",
        "",
        "Made by `python -m benchmarks.zoo.heads`: classifiers continued with their head on another draw of the data,",
        "some without a class; then one output is favoured by hand (its bias raised by so many logits, or its row",
        f"lengthened by a share). The value is in nats; a review is asked for from {review:g} on.",
        "",
        "| classifier | outputs | honest n | median | largest | tail at 0.1 % | honest reviewed |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in sorted({line["kind"] for line in lines}):
        own = [line for line in lines if line["kind"] == kind and line["clean"] is not None]
        values = np.array([line["clean"] for line in own])
        if len(values) == 0:
            continue
        out.append(
            f"| {kind} | {own[0]['outputs']} | {len(values)} | {np.median(values):.2f} | {values.max():.2f} | "
            f"{tail_point(values, 1e-3):.2f} | {said(int((values >= review).sum()), len(values))} |"
        )
    out += ["", "| classifier | favoured by | strength | n | value (median) | reviewed |", "|---|---|---|---|---|---|"]
    for kind in sorted({line["kind"] for line in lines}):
        for how, strength in heads.ATTACKS:
            wanted = (kind, how, strength)
            found = [line["attacked"] for line in lines if _favoured(line) == wanted and line["attacked"] is not None]
            if found:
                over = said(sum(value >= review for value in found), len(found))
                out.append(f"| {kind} | {how} | {strength:g} | {len(found)} | {np.median(found):.2f} | {over} |")
    return [*out, ""]


def _favoured(line: Line) -> tuple[str, str | None, float | None]:
    return line["kind"], line.get("how"), line.get("strength")


def main() -> None:
    """Writes the section."""
    made = section(vision.lines(), heads.lines())
    PAGE.write_text(splice(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")


if __name__ == "__main__":
    main()
