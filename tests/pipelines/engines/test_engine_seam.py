import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightjobs import scanned

from pipelines.engines.seam import Failed, ScanJob, Unchanged, decode, encode

JOB = ScanJob(job_id=1, attempt_id=2, repo_id="org/name")


@given(st.text(), st.binary(max_size=200), st.floats(0, 1))
def test_answers_come_back_as_they_went(text: str, body: bytes, score: float) -> None:
    for answer in (
        scanned(JOB, problem=text, report=body, score=score, outcome="fail"),
        Failed(reason=text, cause=text, transient=True, requests=3, seconds=score),
        Unchanged(requests=7),
    ):
        assert decode(encode(answer)) == answer


@pytest.mark.parametrize("cut", [0, 1, 40, -90])
def test_half_an_answer_is_none(cut: int) -> None:
    whole = encode(scanned(JOB, report=b""))
    with pytest.raises(ValueError, match="not the outcome"):
        decode(whole[:cut])


@pytest.mark.parametrize("raw", [b"[]\n", b'{"kind": "Other"}\n', b'{"kind": "Failed"}\n', b"\xff\n", b"null\n"])
def test_foreign_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not the outcome"):
        decode(raw)
