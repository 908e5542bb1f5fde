"""The dashboard page: works without network, runs nothing inline, and puts data into the page as text only."""

import re

import pytest

from streams.web.app import CONTENT_SECURITY_POLICY, STATIC

FILES = sorted(path.name for path in STATIC.iterdir())
SCRIPTS = [name for name in FILES if name.endswith(".js")]
PAGE = (STATIC / "index.html").read_text()


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


def test_the_page_has_no_inline_script_or_style_and_the_policy_forbids_them() -> None:
    assert re.findall(r"<script(?![^>]*src=)", PAGE) == []
    assert "<style" not in PAGE
    assert re.findall(r"\s(?:on\w+|style)=", PAGE) == []
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY


def test_every_element_that_the_script_fills_is_in_the_page() -> None:
    script = (STATIC / "dashboard.js").read_text()
    wanted = set(re.findall(r'byId\("([\w-]+)"\)', script)) | set(re.findall(r'(?:show|bars)\("([\w-]+)"', script))
    assert len(wanted) > 12
    assert wanted <= set(re.findall(r'id="([\w-]+)"', PAGE))


def test_every_asset_of_the_page_exists() -> None:
    wanted = set(re.findall(r'"/assets/([^"]+)"', PAGE + (STATIC / "dashboard.js").read_text()))
    assert wanted == set(FILES) - {"index.html"}
