"""docs/automation.md names every input of the Action and every option that it promises."""

import re
from pathlib import Path

import yaml
from click.testing import CliRunner

from pipelines.cli import cli

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "automation.md").read_text()


def test_every_input_and_output_of_the_action_is_described() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert [name for name in (*action["inputs"], *action["outputs"]) if f"`{name}`" not in PAGE] == []


def test_every_option_that_is_named_exists() -> None:
    texts = [CliRunner().invoke(cli, [command, "--help"]).output for command in ("publish", "serve", "scan")]
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert {option for option in named if not any(option in text for text in texts)} == set()


def test_the_yaml_of_the_page_is_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        assert yaml.safe_load(block)
