"""Words of a width."""

from __future__ import annotations

import pytest

from forktrace.views.words import short_command, without_folders


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/usr/bin/python3.11 ../app/consumer.py --to /var/log/x.log", "python3.11 consumer.py --to x.log"),
        ("python consumer.py", "python consumer.py"),
        ("curl https://example.org/a/b -o a=/b/c", "curl https://example.org/a/b -o a=/b/c"),
        ("ls / /tmp/", "ls / /tmp/"),
        ("/" + "a/" * 100_000 + "$", "/" + "a/" * 100_000 + "$"),
        ("sh -c '/bin/true; exit 3'", "sh -c '/bin/true; exit 3'"),
    ],
)
def test_without_folders(line: str, expected: str) -> None:
    """Paths that are words of their own lose their folders; nothing else changes."""
    assert without_folders(line) == expected


def test_short_command() -> None:
    """A command that fits stays as it is; else folders go first, then the end."""
    line = "/usr/bin/python /srv/consumer.py"
    assert short_command(line, 32) == line
    assert short_command(line, 31) == "python consumer.py"
    assert short_command(line, 12) == "python c ..."
