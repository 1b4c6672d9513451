"""A headless Chromium by Playwright, or a skipped test that says which of the two is missing.

`pip install playwright` brings no browser. A Chromium of the system is taken where there is one, or Playwright's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def opened() -> Iterator:
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, BROWSERS)), playwright.chromium.executable_path)
        if not os.path.exists(path):
            pytest.skip("no Chromium: neither on the PATH nor by `playwright install chromium`")
        # as root Chromium starts without its sandbox only
        options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        with playwright.chromium.launch(executable_path=path, args=options) as browser:
            yield browser
