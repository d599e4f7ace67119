"""The browser, started once for a module of tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.report.browser import ARGUMENTS, CHROMIUM, Browser
from tests.requirements import require


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    require(CHROMIUM, "the report's page is tested in Chromium, which is not installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Browser]:
    found = Browser(chromium)
    yield found
    for context in found.contexts:
        context.close()
