import pytest

from scanner.quota import Allowance, allowance_of, bucket_of


@pytest.mark.parametrize(
    ("path", "bucket"),
    [
        ("/api/models/org/name", "api"),
        ("/org/name/resolve/main/x", "resolvers"),
        ("/org/name", "pages"),
        ("/apis", "pages"),
    ],
)
def test_requests_are_told_apart(path: str, bucket: str) -> None:
    assert bucket_of(path) == bucket


def test_a_whole_statement_is_read() -> None:
    headers = {"RateLimit": '"api";r=489;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    assert allowance_of(headers) == Allowance(remaining=489, reset_seconds=55, quota=500, window_seconds=300)


def test_a_statement_without_its_policy_counts() -> None:
    assert allowance_of({"RateLimit": '"api"; r=3; t=5'}) == Allowance(remaining=3, reset_seconds=5)


@pytest.mark.parametrize(
    "text", ["", "r=1;t=2", '"api";r=-1;t=5', '"api";r=9999999999;t=1', '"api";t=5;r=1', "x" * 9000]
)
def test_anything_else_states_nothing(text: str) -> None:
    assert allowance_of({"RateLimit": text}) is None
