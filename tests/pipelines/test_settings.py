"""The environment is read once, and nonsense in it falls back to the defaults."""

import pytest

from pipelines.settings import DEFAULT_ENDPOINT, Settings, load_settings


def test_an_empty_environment_gives_the_real_hub() -> None:
    assert load_settings({}) == Settings(endpoint=DEFAULT_ENDPOINT, token=None)


def test_the_endpoint_loses_its_trailing_slash_and_an_empty_token_is_none() -> None:
    settings = load_settings({"HF_ENDPOINT": "http://127.0.0.1:1/", "HF_TOKEN": ""})
    assert settings.endpoint == "http://127.0.0.1:1"
    assert settings.token is None


@pytest.mark.parametrize("value", ["", "soon", "-1", "0", "nan"])
def test_a_timeout_that_is_not_a_positive_number_is_the_default(value: str) -> None:
    assert load_settings({"HUBAUDIT_TIMEOUT": value}).timeout_seconds == 30.0


def test_a_timeout_is_taken() -> None:
    assert load_settings({"HUBAUDIT_TIMEOUT": "2.5", "HUBAUDIT_PATIENCE": "7"}).timeout_seconds == 2.5
