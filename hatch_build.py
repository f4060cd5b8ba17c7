"""The page on PyPI: where the project is, and a README whose pictures and links lead there.

The address is a setting, `url` in pyproject.toml, which a fork sets to its own; without one there are no addresses at all.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAGES = {"Changelog": "CHANGELOG.md", "Documentation": "docs/README.md"}


class Page(MetadataHookInterface):
    """Fills in `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Change the metadata in place."""
        url = str(self.config.get("url", "")).rstrip("/")
        text = Path(self.root, "README.md").read_text()
        metadata["readme"] = {"content-type": "text/markdown", "text": with_addresses(text, url)}
        if url:
            metadata["urls"] = {"Source": url} | {name: f"{url}/blob/main/{page}" for name, page in PAGES.items()}


def with_addresses(text: str, url: str) -> str:
    """Return a README in which links within the project lead to `url`; without one they are words, and pictures are gone."""
    within = r"\]\((?!https?:|#)([^)]+)\)"
    if not url:
        return re.sub(rf"\[([^\]]*){within}", r"\1", re.sub(rf"!\[[^\]]*{within}\n*", "", text))
    pictures = re.sub(rf"(!\[[^\]]*){within}", rf"\1]({url}/raw/main/\2)", text)
    return re.sub(within, rf"]({url}/blob/main/\1)", pictures)
