"""What is worked out once for each recording, history or log, however many tables ask for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

About = TypeVar("About")
Answer = TypeVar("Answer")


def once(function: Callable[[About], Answer]) -> Callable[[About], Answer]:
    """Return `function` with its answer kept in the object that it is about. Nobody may change the answer."""
    name = f"{function.__module__}.{function.__qualname__}"

    @wraps(function)
    def kept(about: About) -> Answer:
        answers = vars(about)
        if name not in answers:
            answers[name] = function(about)
        answer: Answer = answers[name]
        return answer

    return kept
