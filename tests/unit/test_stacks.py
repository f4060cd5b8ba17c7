"""Folding stacks and reading them back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forktrace.trace.stacks import Frame, fold, unfold

PLAIN = st.text(st.characters(blacklist_characters=";", blacklist_categories=["Cs"]), min_size=1)
FRAMES = st.lists(st.builds(Frame, PLAIN, st.integers(0, 1 << 30), PLAIN.filter(lambda name: " " not in name)))


def test_fold() -> None:
    """A frame is file, line and name; frames go from the outermost in."""
    frames = [Frame("/srv/a b.py", 4, "main"), Frame("<frozen runpy>", 12, "<lambda>")]
    assert fold(frames) == "/srv/a b.py:4 main;<frozen runpy>:12 <lambda>"


@given(FRAMES)
def test_any_stack_comes_back(frames: list[Frame]) -> None:
    """Whatever a file or a function is called."""
    assert unfold(fold(frames)) == frames


def test_separators_are_escaped() -> None:
    """Names that look like frames stay one frame."""
    assert unfold(fold([Frame("a;b", 1, "f g;")])) == [Frame("a\\x3bb", 1, "f\\x20g\\x3b")]


def test_nonsense_is_kept() -> None:
    """What is no frame is shown as it is."""
    assert unfold("what") == [Frame("what", 0, "")]


def test_a_line_that_is_no_number() -> None:
    """A number of thousands of digits, which Python would not even read, is part of a name."""
    text = f"/a.py:{'9' * 5000} f"
    assert unfold(f"{text};/a.py:4294967295 f") == [Frame(text, 0, ""), Frame("/a.py", 4294967295, "f")]
