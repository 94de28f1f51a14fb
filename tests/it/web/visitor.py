"""Somebody before a browser: what the scripts beside this one walk through pages with.

They are called as SCRIPT PART URL ADMIN READ PICTURES GATE. Along the way every answer must carry its headers,
and the console must stay silent.
"""

import re
import sys
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Response, expect, sync_playwright

PART, URL, ADMIN, READ, PICTURES, GATE = sys.argv[1:]
MS = 60_000
AXE = Axe()


class Visitor:
    """Somebody before a browser of their own."""

    def __init__(self, browser: Browser, **options) -> None:
        self.context = browser.new_context(base_url=URL, **options)
        self.context.set_default_timeout(MS)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.has_script = options.get("java_script_enabled", True)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", self._judge)

    def _hear(self, message) -> None:
        # That a form was refused, or one is not signed in, is no fault of a page.
        is_answer = re.match(r"Failed to load resource: .* status of 4\d\d", message.text)
        if message.type in ("error", "warning") and not is_answer:
            self.complaints.append(f"{self.page.url}: {message.text} ({message.location})")

    def _judge(self, response: Response) -> None:
        kind = response.headers.get("content-type", "")
        is_page = "text/html" in kind or "/assets/" in response.url
        policy = response.headers.get("content-security-policy", "")
        is_guarded = (
            "default-src 'none'" in policy
            and "frame-ancestors 'none'" in policy
            and "unsafe" not in policy
            and response.headers.get("x-content-type-options") == "nosniff"
            and response.headers.get("referrer-policy") == "same-origin"
        )
        if is_page and not is_guarded:
            self.complaints.append(f"{response.url} has headers {response.headers}")

    def sign_in(self, token: str, to: str = "/") -> None:
        self.page.goto(to)
        self.heading("Sign in")
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()

    def heading(self, name: str) -> None:
        shown = self.page.get_by_role("main").inner_text
        message = f"the page says {shown() if self.page.locator('main').count() else None}"
        expect(self.page.get_by_role("heading", level=1), message).to_have_text(name)

    def go(self, name: str) -> None:
        self.page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        self.heading(name)
        here = self.page.locator("nav [aria-current=page]")
        expect(here).to_have_text(name)

    def said(self, text: str) -> None:
        expect(self.page.locator("p.done")).to_contain_text(text)

    def row(self, who: str):
        cell = self.page.locator("td[data-label=Who]", has_text=re.compile(rf"^{who}\b"))
        return self.page.get_by_role("row").filter(has=cell)

    def picture(self, name: str) -> None:
        path = Path(PICTURES)
        path.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path / f"{name}.png", full_page=True)

    def is_sound(self) -> None:
        """What every page has for those who do not see it, or not well."""
        ids = self.page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
        assert len(ids) == len(set(ids)), ids
        if not self.has_script:
            return  # What judges is a script itself.
        judged = AXE.run(self.page)
        assert judged.violations_count == 0, f"{self.page.url}: {judged.generate_report()}"

    def leave(self) -> None:
        assert not self.complaints, self.complaints
        self.context.close()


def walk(parts: dict) -> None:
    """Does the part that was asked for, in a browser of its own."""
    expect.set_options(timeout=MS)
    with sync_playwright() as driver:
        args = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=args)
        parts[PART](browser)
        browser.close()
