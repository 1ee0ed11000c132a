import pytest
import sample_reports
from hypothesis import assume, example, given
from hypothesis import strategies as st
from stopwatch import at_most

from reports.card_section import BEGIN, END, CardMarkersError, remove, splice
from reports.markdown import card_section
from scanner.errors import CouldNotConclude

SECTION = f"{BEGIN}\n## Weight audit\n\nnothing found\n{END}\n"
OTHER = f"{BEGIN}\n## Weight audit\n\none | table |\n\nmore\n{END}\n"
PIECES = st.sampled_from(
    ["a", "# T", "\n", "\r\n", "\r", "---\n", "---\r\n", "base_model: x/y\n", " ", "é", "\ufeff", "```\n", "<!-- c -->"]
)
READMES = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map("".join))


@given(READMES)
@example("")
@example("\n")
@example("\r")
@example("a\nb\r")
@example("\ufeff")
@example("---\nbase_model: x/y\n---")
@example("text without line end")
def test_removing_what_was_put_in_gives_every_byte_back(readme):
    assume("hubaudit" not in readme)
    raw = readme.encode("utf-8", "surrogatepass")
    assert remove(splice(raw, SECTION.encode())) == raw
    assert remove(splice(readme, SECTION)) == readme


@given(READMES)
def test_twice_changes_nothing(readme):
    assume("hubaudit" not in readme)
    once = splice(readme, SECTION)
    assert splice(once, SECTION) == once


@given(READMES, READMES)
@example("", "nothing found")
def test_everything_outside_the_markers_stays_byte_for_byte(before, after):
    assume("hubaudit" not in before + after)
    assume(not before.lstrip("\ufeff").startswith("---"))
    head = before if before in {"", "\ufeff"} or before.endswith(("\n", "\r")) else before + "\n"
    tail = "" if not after else "\n" + after
    done = splice(head + SECTION.strip() + tail, OTHER)
    assert done.startswith(head)
    assert done.endswith(tail)
    between = done[len(head) : len(done) - len(tail)]
    assert "one | table |" in between
    assert "nothing found" not in between


@given(READMES)
def test_bytes_and_text_agree(readme):
    assume("hubaudit" not in readme)
    raw = readme.encode("utf-8", "surrogatepass")
    assert splice(readme, SECTION).encode("utf-8", "surrogatepass") == splice(raw, SECTION.encode())


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        ("", SECTION),
        ("# Title\n", "# Title\n\n" + SECTION),
        ("# Title", "# Title\n\n" + SECTION[:-1]),
        ("---\nlicense: mit\n---\n", "---\nlicense: mit\n---\n\n" + SECTION),
        ("a\r\nb\r\n", "a\r\nb\r\n\r\n" + SECTION.replace("\n", "\r\n")),
        ("\ufeff# T\n", "\ufeff# T\n\n" + SECTION),
    ],
)
def test_a_new_section_goes_to_the_end_in_the_file_s_own_line_ends(readme, expected):
    assert splice(readme, SECTION) == expected


def test_an_old_section_is_replaced_where_it_stands():
    readme = f"# T\r\n\r\n{BEGIN}\r\nold\r\n{END}  \r\n\r\nlast words"
    done = splice(readme, OTHER)
    assert done == "# T\r\n\r\n" + OTHER.strip().replace("\n", "\r\n") + "  \r\n\r\nlast words"
    assert remove(done) == "# T\r\n\r\n\r\nlast words"


def test_a_section_right_after_a_byte_order_mark_is_found():
    assert splice("\ufeff" + SECTION, OTHER) == "\ufeff" + OTHER


def test_removing_nothing_changes_nothing():
    assert remove(b"# T\n") == b"# T\n"


@pytest.mark.parametrize(
    ("readme", "line", "why"),
    [
        (f"a\n{BEGIN}\nx\n", 2, "is one of 1; there must be one begin, then one end"),
        (f"{END}\n", 1, "is one of 1"),
        (f"{END}\n{BEGIN}\n", 1, "is one of 2"),
        (f"{SECTION}\n{SECTION}", 7, "is one of 4"),
        (f"{BEGIN}\n{BEGIN}\n{END}\n{END}\n", 1, "is one of 4"),
        (f"{BEGIN}\nx\n{BEGIN}\n{END}\n", 1, "is one of 3"),
        (f"x {BEGIN}\ny\n{END}\n", 1, "is not exactly"),
        (f"{BEGIN} x\ny\n{END}\n", 1, "is not exactly"),
        (f"  {BEGIN}\ny\n{END}\n", 1, "is not exactly"),
        ("a\r\nb\r\n<!--hubaudit:begin-->\r\n", 3, "is not exactly"),
        ("<!-- hubaudit: begin -->\n", 1, "is not exactly"),
        ("<!-- HUBAUDIT:END -->\n", 1, "is not exactly"),
        ("<!-- hubaudit:begin\n", 1, "is not exactly"),
        ("hubaudit:end -->\n", 1, "is not exactly"),
        (f"---\n{BEGIN}\n{END}\n---\n", 2, "inside the metadata block"),
    ],
)
@pytest.mark.parametrize("act", [lambda readme: splice(readme, SECTION), remove])
def test_damaged_markers_are_an_error_that_names_the_line(readme, line, why, act):
    with pytest.raises(CardMarkersError, match=rf"line {line}: .*{why}") as caught:
        act(readme)
    assert isinstance(caught.value, CouldNotConclude)


def test_prose_about_the_markers_is_no_marker():
    readme = "This card once used hubaudit:begin and `hubaudit:end`.\n"
    assert splice(readme, SECTION).startswith(readme)


@pytest.mark.parametrize(
    "section",
    [
        "",
        "text",
        f"{BEGIN}\nx",
        f"x\n{SECTION}",
        f"{SECTION}x",
        f"{BEGIN}\n{BEGIN}\n{END}",
        f"{BEGIN}\n<!--hubaudit:end-->\n{END}",
    ],
)
def test_what_is_not_one_section_is_refused(section):
    with pytest.raises(ValueError, match="a card section starts with"):
        splice("# T\n", section)


def test_two_megabytes_and_a_hundred_thousand_markers_take_no_time():
    with at_most(5):
        big = ("word " * 20 + "\n") * 20_000
        assert remove(splice(big, SECTION)) == big
        with pytest.raises(CardMarkersError):
            splice((BEGIN + "\n") * 80_000, SECTION)
        with pytest.raises(CardMarkersError):
            splice("<!-" + "-" * 500_000 + " hubaudit" * 50_000 + " <!--  hubaudit:begin" * 50_000, SECTION)


@pytest.mark.parametrize("name", sample_reports.SAMPLES)
def test_our_own_sections_can_be_spliced(name):
    section = card_section(sample_reports.SAMPLES[name]())
    readme = "---\nbase_model: demo/small-encoder\n---\n# Card\n"
    assert remove(splice(readme, section)) == readme
    assert remove(splice(readme.encode(), section.encode())) == readme.encode()


@pytest.mark.parametrize(
    "payload", [BEGIN, END, f"\n{END}\n", "<!-- hubaudit:end", "hubaudit:begin -->", "-->", "<!--"]
)
def test_hostile_text_cannot_imitate_the_markers(payload):
    section = card_section(sample_reports.hostile(payload))
    assert remove(splice("# T\n", section)) == "# T\n"
