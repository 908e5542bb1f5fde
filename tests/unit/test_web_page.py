"""The dashboard page: works without network, runs nothing inline, and puts data into the page as text only."""

import re

import pytest

from streams.web.app import CONTENT_SECURITY_POLICY, STATIC

FILES = sorted(path.name for path in STATIC.iterdir())
SCRIPTS = [name for name in FILES if name.endswith(".js")]
#: Each page with its script.
PAGES = {"index.html": "dashboard.js", "alerts.html": "alerts.js"}


def _text(name: str) -> str:
    return (STATIC / name).read_text()


@pytest.mark.parametrize("name", FILES)
def test_a_file_names_no_other_host(name: str) -> None:
    hosts = set(re.findall(r"(?:https?:)?//([\w.-]+\.\w+)", (STATIC / name).read_text()))
    # The namespace of SVG is a name and is never fetched.
    assert hosts <= {"www.w3.org"}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(
    "sink", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser", "srcdoc"]
)
def test_a_script_never_turns_text_into_markup(name: str, sink: str) -> None:
    assert sink not in (STATIC / name).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_no_inline_script_or_style_and_the_policy_forbids_them(page: str) -> None:
    assert re.findall(r"<script(?![^>]*src=)", _text(page)) == []
    assert "<style" not in _text(page)
    assert re.findall(r"\s(?:on\w+|style)=", _text(page)) == []
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY


@pytest.mark.parametrize(("page", "script"), PAGES.items())
def test_every_element_that_a_script_fills_is_in_its_page(page: str, script: str) -> None:
    text = _text(script)
    wanted = set(re.findall(r'byId\("([\w-]+)"\)', text)) | set(re.findall(r'(?:show|bars)\("([\w-]+)"', text))
    assert len(wanted) > 12
    assert wanted <= set(re.findall(r'id="([\w-]+)"', _text(page)))


def test_every_asset_of_the_pages_exists_and_none_is_left_over() -> None:
    texts = "".join(_text(name) for pair in PAGES.items() for name in pair)
    assert set(re.findall(r'"/assets/([^"]+)"', texts)) == set(FILES) - set(PAGES)
