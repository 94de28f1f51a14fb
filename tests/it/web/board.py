"""Walks through the board in a browser."""

import os
import re
import signal
import subprocess

from playwright.sync_api import Browser, expect

from visitor import ADMIN, GATE, READ, URL, Visitor, walk

# A name as it lies there, and as it is shown.
RAW = "<img src=x onerror=alert(1)>\u202etxt"
HOSTILE = RAW.replace("\u202e", "\\u{202e}")
PAGES = ["Overview", "Locks", "Mounts", "Buckets", "Sessions", "Log", "Why"]


def people(browser: Browser) -> None:
    """Signs in, looks at everything, does all that may be done."""
    visitor = Visitor(browser, viewport={"width": 1200, "height": 800})
    page = visitor.page
    visitor.sign_in("x" * 40, "/locks")
    expect(page.get_by_role("alert")).to_have_text("That token is not known here.")
    visitor.is_sound()
    page.get_by_label("Token").fill(ADMIN)
    page.keyboard.press("Enter")
    visitor.heading("Locks")
    assert page.url == f"{URL}/locks", page.url
    expect(page.locator("#summary")).to_have_text("3 held, 2 waiting")
    expect(page.locator("#live")).to_have_text("Live")
    expect(visitor.row("ada")).to_contain_text("held")
    expect(visitor.row("ada")).to_contain_text("release build")
    expect(visitor.row("bob")).to_contain_text("waiting #1")
    expect(visitor.row("bob")).to_contain_text(re.compile(r"ticket \d+ \(ada\)"))
    expect(visitor.row("carol")).to_contain_text("waiting #2")
    # Names of others are text, whatever they say.
    expect(page.get_by_role("link", name=HOSTILE)).to_be_visible()
    assert page.locator("main img").count() == 0
    visitor.picture("locks")

    # Somebody comes and goes, and nobody touches the page.
    page.evaluate("window.isUntouched = true")
    command = [GATE, "hold", "view/docs/plan.md", "--", "cat"]
    dora = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, "GATE_AGENT": "dora"})
    expect(visitor.row("dora")).to_contain_text("waiting #1")
    expect(page.locator("#summary")).to_have_text("3 held, 3 waiting")
    page.get_by_role("link", name="Recall").first.focus()
    focused = page.evaluate("document.activeElement.id")
    dora.terminate()
    dora.wait()
    expect(page.locator("#summary")).to_have_text("3 held, 2 waiting")
    assert page.evaluate("document.activeElement.id") == focused, "the keyboard stays where it was"
    assert page.evaluate("window.isUntouched")

    # Who reads what somebody only has open is let past, and that is said.
    subprocess.run(["cat", f"view/{RAW}"], check=True)
    passed = page.get_by_role("region", name="Read without a turn, lately").get_by_role("listitem")
    expect(passed).to_have_count(1)
    expect(passed).to_contain_text(HOSTILE)

    visitor.go("Overview")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("listitem").filter(has_text="bob")).to_contain_text("waits for src/main.rs")
    for name in PAGES:
        visitor.go(name)
        visitor.is_sound()

    # What is in the way, by a click.
    visitor.go("Locks")
    page.get_by_role("link", name="src/main.rs").first.click()
    visitor.heading("Why")
    expect(page.get_by_role("heading", name="What to do")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="ada")).not_to_have_count(0)
    visitor.is_sound()
    visitor.picture("why")
    page.get_by_label("Path, in a view or behind one").fill("/nowhere/at/all")
    page.get_by_label("Space").fill("")
    page.get_by_role("button", name="Look").click()
    visitor.heading("That did not work")
    expect(page.get_by_text("there is no such path or space here")).to_be_visible()
    page.get_by_role("link", name="Back").click()
    visitor.heading("Why")

    visitor.go("Locks")
    visitor.row("ada").get_by_role("link", name="Recall").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    visitor.row("ada").get_by_role("link", name="Recall").click()
    expect(dialog.get_by_label("Reason")).to_be_focused()
    visitor.is_sound()
    visitor.picture("recall")
    dialog.get_by_role("link", name="Cancel").click()
    expect(dialog).not_to_be_visible()
    visitor.row("ada").get_by_role("link", name="Recall").click()
    dialog.get_by_label("Reason").fill("lunch")
    dialog.get_by_label("seconds").fill("600")
    dialog.get_by_role("button", name="Ask for it").click()
    visitor.said("is asked to let go")
    expect(visitor.row("ada")).to_contain_text("held (asked)")
    visitor.row("ada").get_by_role("link", name="Break").click()
    dialog.get_by_label("Reason").fill("it hangs")
    dialog.get_by_role("button", name="Break it").click()
    visitor.said("is broken")
    expect(visitor.row("bob")).to_contain_text("held")

    mounts(visitor)
    dies(visitor)

    visitor.go("Log")
    page.get_by_label("What", exact=True).select_option("lost its turn")
    page.get_by_label("Since").fill("10m")
    page.get_by_label("At and beneath").fill("src")
    home = os.environ["HOME"].removesuffix("/home")
    page.get_by_label("Space").select_option(f"{home}/source")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("cell", name="somebody broke it: it hangs")).to_be_visible()
    visitor.picture("log")
    page.get_by_label("Since").fill("yesterday")
    page.get_by_role("button", name="Show").click()
    visitor.heading("That did not work")
    visitor.is_sound()
    visitor.go("Sessions")
    expect(page.get_by_role("row").filter(has_text="gate mount")).to_contain_text("there")
    visitor.picture("sessions")

    page.get_by_role("button", name="Sign out").click()
    visitor.heading("Sign in")
    page.goto("/mounts")
    visitor.heading("Sign in")
    visitor.leave()


def mounts(visitor: Visitor) -> None:
    """Adds a mount, starts, stops, edits and removes it; leaves one in use alone."""
    page = visitor.page
    home = os.environ["HOME"].removesuffix("/home")
    os.mkdir(f"{home}/other")
    visitor.go("Mounts")
    card = page.locator("li.card").filter(has_text="/shown")
    page.get_by_role("link", name="Add a mount").click()
    page.get_by_label("Directory to show").fill("not/absolute")
    page.get_by_label("Where it is shown").fill(f"{home}/shown")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("no absolute path")
    visitor.picture("add")
    page.get_by_label("Directory to show").fill(f"{home}/other")
    page.get_by_role("button", name="Add").click()
    visitor.said("started")
    expect(card).to_contain_text("running")
    visitor.picture("mounts")
    card.get_by_role("button", name="Stop").click()
    visitor.said("stopped")
    card.get_by_role("link", name="Edit").click()
    visitor.is_sound()
    page.get_by_label("Refuses all changes").check()
    page.get_by_label("Where it is shown").fill(f"{home}/shown/elsewhere")
    page.get_by_role("button", name="Save").click()
    visitor.said("changed")
    expect(card).to_contain_text("read-only")
    card.get_by_role("button", name="Start").click()
    visitor.said("started")
    card.get_by_role("link", name="Remove").click()
    page.get_by_role("link", name="Cancel").click()
    card.get_by_role("link", name="Remove").click()
    page.get_by_role("button", name="Remove").click()
    visitor.said("removed")
    expect(card).to_have_count(0)
    page.get_by_role("button", name="Stop").click()
    visitor.heading("That did not work")
    expect(page.get_by_role("button", name="Stop it all the same")).to_be_visible()
    page.get_by_role("link", name="Leave it as it is").click()
    visitor.heading("Mounts")


def dies(visitor: Visitor) -> None:
    """A mount's server is killed while somebody looks; nobody touches the page."""
    page = visitor.page
    home = os.environ["HOME"].removesuffix("/home")
    subprocess.run([GATE, "mount", "add", f"{home}/other", f"{home}/mortal", "--start"], check=True)
    card = page.locator("li.card").filter(has_text="/mortal")
    expect(page.locator("#live")).to_have_text("Live")
    expect(card).to_contain_text("running")
    expect(page.locator("#summary")).to_have_text("2 running")
    page.evaluate("window.isUntouched = true")
    card.get_by_role("link", name="Edit").focus()
    os.kill(int(re.search(r"process (\d+)", card.inner_text()).group(1)), signal.SIGKILL)
    expect(card.locator(".chip")).to_have_text("error")
    expect(card).to_contain_text("died")
    expect(page.locator("#summary")).to_have_text("1 error, 1 running")
    expect(card.get_by_role("link", name="Edit")).to_be_focused()
    visitor.picture("mount-died")
    subprocess.run([GATE, "mount", "remove", "-f", f"{home}/mortal"], check=True)
    expect(card).to_have_count(0)
    assert page.evaluate("window.isUntouched")


def plain(browser: Browser) -> None:
    """The same by links and forms alone."""
    visitor = Visitor(browser, java_script_enabled=False)
    page = visitor.page
    visitor.sign_in(ADMIN, "/locks")
    visitor.heading("Locks")
    expect(page.locator("#summary")).to_have_text("3 held, 2 waiting")
    expect(page.locator("#live")).to_contain_text("As of")
    for name in PAGES:
        visitor.go(name)
    visitor.go("Locks")
    visitor.row("ada").get_by_role("link", name="Recall").click()
    page.get_by_label("Reason").fill("lunch")
    page.get_by_role("button", name="Ask for it").click()
    visitor.said("is asked to let go")
    visitor.row("ada").get_by_role("link", name="Break").click()
    # What is wrong with a form is said beside it, and what was written stays.
    page.get_by_label("Reason").fill("  ")
    page.get_by_role("button", name="Break it").click()
    expect(page.get_by_role("alert")).to_contain_text("there is no reason")
    page.get_by_label("Reason").fill("no script")
    page.get_by_role("button", name="Break it").click()
    visitor.said("is broken")
    expect(visitor.row("bob")).to_contain_text("held")
    mounts(visitor)
    page.get_by_role("button", name="Sign out").click()
    visitor.heading("Sign in")
    visitor.leave()


def reader(browser: Browser) -> None:
    """With a token that may only look."""
    visitor = Visitor(browser)
    page = visitor.page
    visitor.sign_in(READ)
    visitor.heading("Overview")
    for name in PAGES:
        visitor.go(name)
    visitor.go("Locks")
    expect(page.locator("#live")).to_have_text("Live")
    expect(visitor.row("ada")).to_contain_text("held")
    for name in ["Recall", "Break"]:
        expect(page.get_by_role("link", name=name)).to_have_count(0)
    visitor.go("Mounts")
    for name in ["Add a mount", "Edit", "Remove"]:
        expect(page.get_by_role("link", name=name)).to_have_count(0)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    for path in ["/mounts/add", "/locks/1/break"]:
        assert page.goto(path).status == 403, path
        expect(page.get_by_text("this takes a token with the scope admin")).to_be_visible()
    origin = {"Origin": URL}
    form = {"reason": "none"}
    for path in ["/locks/1/break", "/locks/1/recall", "/mounts/add"]:
        assert page.request.post(path, form=form, headers=origin).status == 403, path
    # A page of another address has the browser, and not the word of its own.
    assert page.request.post("/logout", form={}).status == 403
    visitor.leave()


def narrow(browser: Browser) -> None:
    """On a phone, by the keyboard, in the light and in the dark."""
    for device, width, height, scheme in [
        ("phone", 390, 844, "light"),
        ("phone", 390, 844, "dark"),
        ("desk", 1200, 800, "dark"),
    ]:
        options = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
        visitor = Visitor(browser, **options)
        page = visitor.page
        page.goto("/")
        visitor.picture(f"{device}-{scheme}-sign-in")
        visitor.sign_in(ADMIN)
        for name in PAGES:
            visitor.go(name)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} is {wide} wide on a {device}"
            visitor.is_sound()
            visitor.picture(f"{device}-{scheme}-{name.lower()}")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(re.findall(r"\d+", ground)[0])
        assert (red < 64) == (scheme == "dark"), ground
        visitor.go("Locks")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("main")).to_be_focused()
        page.keyboard.press("Tab")
        first = page.locator("#board a").first
        expect(first).to_be_focused()
        # … and the keyboard stays there when the board is another.
        page.evaluate("document.getElementById('of-now').dataset.isOld = ''")
        page.evaluate("htmx.trigger('#board', 'refresh')")
        expect(page.locator("#of-now[data-is-old]")).to_have_count(0)
        expect(first).to_be_focused()
        visitor.leave()


def halted(browser: Browser) -> None:
    """While the journal cannot be written."""
    visitor = Visitor(browser)
    visitor.sign_in(ADMIN)
    said = visitor.page.get_by_role("alert")
    expect(said).to_contain_text("Nothing is granted: the journal cannot be written.")
    expect(said).to_contain_text("gate doctor")
    visitor.is_sound()
    visitor.picture("halted")
    visitor.leave()


walk({"people": people, "plain": plain, "reader": reader, "narrow": narrow, "halted": halted})
