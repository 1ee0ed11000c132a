"""Declared parents: every place, odd values, conflicts, and the walk to the root over HTTP."""

import pytest
from localhub.faults import FOR_EVER, Status
from quickhub import quick_hub

from scanner.card import parse_card
from scanner.lineage.claims import MAX_CHAIN, ClaimSet, collect_claims, walk, walk_chain
from scanner.records import RepoFacts, RepoRef

REF = RepoRef(repo_id="org/tuned", revision="0" * 40)


def facts(front: str | None = None, *, ref: RepoRef = REF, **kwargs) -> RepoFacts:
    card = {} if front is None else {"card": parse_card(f"---\n{front}\n---\n# Model\n")}
    return RepoFacts(ref=ref, files=(), **card, **kwargs)


def claims(front: str | None = None, **kwargs) -> ClaimSet:
    return collect_claims(facts(front, **kwargs))


def test_nothing_declared():
    assert claims() == ClaimSet(claims=(), bases=(), relation=None)


def test_every_place_is_a_claim_most_trusted_first():
    found = claims(
        "base_model: org/card\nbase_model_relation: merge",
        adapter_config={"base_model_name_or_path": "org/adapter"},
        mergekit_config="models:\n- model: org/recipe\n",
        hub={"base_models": ("org/api",), "relation": "merge", "tags": ("base_model:org/tag", "license:mit")},
        config={"_name_or_path": "org/weak"},
    )
    assert [(claim.source, claim.value) for claim in found.claims] == [
        ("card base_model", "org/card"),
        ("card base_model_relation", "merge"),
        ("adapter_config.json", "org/adapter"),
        ("mergekit_config.yml", "org/recipe"),
        ("Hub baseModels", "org/api"),
        ("Hub tags", "base_model:org/tag"),
        ("config.json _name_or_path", "org/weak"),
    ]
    assert found.bases == ("org/card", "org/adapter", "org/recipe", "org/api", "org/tag")


def test_agreeing_places_are_one_base_without_conflict():
    found = claims(
        "base_model: Org/Base",
        adapter_config={"base_model_name_or_path": "org/base"},
        hub={
            "base_models": ("org/base",),
            "relation": "adapter",
            "tags": ("base_model:org/base", "base_model:adapter:org/base"),
        },
    )
    assert found.bases == ("Org/Base",)
    assert found.relation == "adapter"
    assert not found.conflicts


def test_the_old_name_of_a_renamed_model_is_no_conflict():
    found = claims("base_model: gpt2", hub={"base_models": ("openai-community/gpt2",)})
    assert found.bases == ("gpt2",)
    assert not found.conflicts


def test_card_and_adapter_that_disagree():
    found = claims("base_model: org/x", adapter_config={"base_model_name_or_path": "org/y"})
    assert found.bases == ("org/x", "org/y")
    assert found.conflicts == ("card base_model says org/x, but adapter_config.json says org/y.",)


def test_a_recipe_with_a_model_that_the_card_leaves_out():
    found = claims("base_model: [org/a, org/b]", mergekit_config="models: [{model: org/a}, {model: org/hidden}]")
    assert found.conflicts == ("card base_model says org/a, org/b, but mergekit_config.yml says org/hidden.",)
    assert found.relation == "merge"


@pytest.mark.parametrize(
    ("recipe", "models"),
    [
        ("base_model: org/a\nmodels:\n- model: org/b\n- model: org/c\n", ("org/a", "org/b", "org/c")),
        ("slices:\n- sources:\n  - model: org/a\n    layer_range: [0, 4]\n  - model: org/b\n", ("org/a", "org/b")),
        ("models:\n- model: {model: {path: org/a, revision: x}}\n", ("org/a",)),
        ("models:\n- model: org/a+org/lora\n", ("org/a",)),
        ("models: nonsense\n", ()),
        ("models: [unclosed", ()),
        ("- just\n- a list\n", ()),
    ],
)
def test_merge_recipes(recipe, models):
    found = claims(mergekit_config=recipe)
    assert found.bases == models
    assert bool(found.notes) == (not models)


@pytest.mark.parametrize(
    "value",
    ["./local/folder", "/home/me/model", "C:\\models\\x", "https://example.org/model", "None", "a b", "<b>x</b>", ""],
)
def test_values_that_name_no_repository(value):
    found = claims(adapter_config={"base_model_name_or_path": value})
    assert found.bases == ()
    assert [claim.value for claim in found.claims] == [value]
    assert found.notes == ("adapter_config.json holds 1 of 1 values that name no repository on the Hub.",)
    assert not found.conflicts


@pytest.mark.parametrize("value", [7, ["org/a"], {"x": "y"}, True, "x" * 10_000])
def test_junk_in_an_adapter_config_is_bounded_text(value):
    (claim,) = claims(adapter_config={"base_model_name_or_path": value}).claims
    assert isinstance(claim.value, str)
    assert len(claim.value) <= 300


def test_a_url_counts_as_its_repository():
    assert claims("base_model: https://huggingface.co/org/base").bases == ("org/base",)


def test_a_model_that_names_itself():
    found = claims("base_model: ORG/tuned")
    assert found.bases == ()
    assert found.conflicts == ("card base_model declares the model itself as its base.",)


def test_the_configurations_own_name_is_a_hint_beside_a_declared_base():
    found = claims("base_model: org/base", config={"_name_or_path": "org/start"})
    assert (found.bases, found.hints) == (("org/base",), ("org/start",))
    assert claims(config={"_name_or_path": "org/start"}).hints == ()


def test_a_list_of_fifty():
    entries = ", ".join(f"org/m{i}" for i in range(50))
    found = claims(f"base_model: [{entries}]", adapter_config={"base_model_name_or_path": "org/other"})
    assert len(found.bases) == 51
    assert found.bases[:2] == ("org/m0", "org/m1")
    assert found.conflicts[0].startswith("card base_model says org/m0, org/m1, org/m2 and 47 more, but")


def test_name_or_path_counts_only_when_nothing_else_is_declared():
    assert claims(config={"_name_or_path": "org/base"}).bases == ("org/base",)
    found = claims("base_model: org/x", config={"_name_or_path": "org/base"})
    assert found.bases == ("org/x",)
    assert not found.conflicts
    assert claims(config={"_name_or_path": "./out/checkpoint-500"}).bases == ()
    own = claims(config={"_name_or_path": "org/tuned"})
    assert own.bases == ()
    assert not own.conflicts


@pytest.mark.parametrize(
    ("kwargs", "relation"),
    [
        ({"front": "base_model_relation: quantized"}, "quantized"),
        ({"front": "base_model_relation: nonsense"}, None),
        ({"hub": {"relation": "finetune"}}, "finetune"),
        ({"hub": {"tags": ("base_model:adapter:org/x",)}}, "adapter"),
        ({"hub": {"tags": ("base_model:org/x", "base_model:evil:org/x")}}, None),
        ({"adapter_config": {}}, "adapter"),
        ({"mergekit_config": ""}, "merge"),
        ({"config": {"quantization_config": {"quant_method": "gptq"}}}, "quantized"),
        ({"config": {}}, None),
    ],
)
def test_relation(kwargs, relation):
    assert claims(**kwargs).relation == relation


def test_relations_that_disagree():
    found = claims("base_model_relation: finetune", adapter_config={})
    assert found.relation == "finetune"
    assert found.conflicts == (
        "The declared relations differ: the card says finetune, adapter_config.json says adapter.",
    )


def test_a_broken_card_is_noted():
    assert any("front matter" in note for note in claims("base_model: [unclosed").notes)


def test_what_the_hub_says_is_not_trusted_to_be_well_formed():
    for hub in ({"tags": 7, "base_models": "org/x"}, {"tags": [7, None], "base_models": [{}]}, {"relation": ["x"]}):
        assert claims(hub=hub).bases == ()


def card_naming(*bases: str) -> dict[str, str]:
    return {"README.md": f"---\nbase_model: [{', '.join(bases)}]\n---\n"}


def test_the_walk_goes_to_the_root(hub_server):
    hub_server.add_repo("org/child", card_naming("org/parent"))
    hub_server.add_repo("org/parent", card_naming("org/root", "org/other"))
    hub_server.add_repo("org/root", {"config.json": "{}"})
    hub = quick_hub(hub_server)
    assert walk_chain("org/child", hub) == ("org/child", "org/parent", "org/root")
    assert walk("org/child", hub).note is None


def test_the_walk_uses_facts_that_are_already_there(hub_server):
    hub_server.add_repo("org/root", {"config.json": "{}"})
    hub = quick_hub(hub_server)
    assert walk_chain(facts("base_model: org/root"), hub) == ("org/tuned", "org/root")
    assert walk_chain(facts(), quick_hub(hub_server)) == ("org/tuned",)
    assert hub_server.log.count("tuned") == 0


def test_a_circle_ends_the_walk(hub_server):
    hub_server.add_repo("org/a", card_naming("org/b"))
    hub_server.add_repo("org/b", card_naming("org/A"))
    found = walk("org/a", quick_hub(hub_server))
    assert found.models == ("org/a", "org/b")
    assert "descends from it" in found.note


def test_the_walk_ends_after_ten_generations(hub_server):
    for i in range(MAX_CHAIN + 5):
        hub_server.add_repo(f"org/m{i}", card_naming(f"org/m{i + 1}"))
    found = walk("org/m0", quick_hub(hub_server))
    assert found.models == tuple(f"org/m{i}" for i in range(MAX_CHAIN))
    assert "more than 10 generations" in found.note


@pytest.mark.parametrize("kwargs", [None, {"private": True}])
def test_a_model_that_cannot_be_read_ends_the_walk_with_a_note(hub_server, kwargs):
    hub_server.add_repo("org/child", card_naming("org/parent"))
    if kwargs:
        hub_server.add_repo("org/parent", {"config.json": "{}"}, **kwargs)
    found = walk("org/child", quick_hub(hub_server))
    assert found.models == ("org/child", "org/parent")
    assert found.note.startswith("The family is known up to org/parent: ")


def test_a_failing_network_ends_the_walk_with_a_note(hub_server):
    hub_server.add_repo("org/child", card_naming("org/parent"))
    hub_server.add_repo("org/parent", {"config.json": "{}"})
    hub_server.faults.add(Status(code=503), path="org/parent", times=FOR_EVER)
    found = walk("org/child", quick_hub(hub_server))
    assert found.models == ("org/child", "org/parent")
    assert found.note
