"""HTML pages, taken apart for tests."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Parsed(HTMLParser):
    """Elements of a page, in order: names and attributes; its text; and what stands in style and script."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.code: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("style", "script"):
            self.code[self._open[-1]] = data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def check(html: str) -> Parsed:
    """A page that is whole, loads nothing from elsewhere and runs nothing but its own script."""
    page = Parsed(html)
    assert html.startswith("<!doctype html>\n<!-- A report by echopix -->\n")
    bare = re.sub(r'base64,[^"]*', "", html)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)|javascript:", bare, re.IGNORECASE)
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; ")
    for name, code in page.code.items():
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not [1 for _, attributes in page.elements if "style" in attributes]  # which the policy forbids
    assert all(image["alt"] and (image["src"] or "").startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert all("hidden" in button for button in page.all("button"))
    assert {name for name, _ in page.elements} & {"link", "iframe", "object", "embed", "base", "form"} == set()
    return page
