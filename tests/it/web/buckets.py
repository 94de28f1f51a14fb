"""Walks through the pages of buckets in a browser."""

import base64
import os
import subprocess

from playwright.sync_api import Browser, expect

from visitor import ADMIN, GATE, READ, URL, Visitor, walk

HOME = os.environ["HOME"].removesuffix("/home")


def gate(*words: str) -> str:
    return subprocess.run([GATE, *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def kept(browser: Browser) -> None:
    """Makes buckets, names and deletes them, without a script."""
    visitor = Visitor(browser, java_script_enabled=False)
    page = visitor.page
    visitor.sign_in(ADMIN)
    visitor.heading("Overview")
    page.get_by_role("link", name="0 buckets").click()
    visitor.heading("Buckets")
    expect(page.get_by_text("No bucket is here.")).to_be_visible()
    page.get_by_role("link", name="Make a bucket").click()
    # What is wrong with a name is said beside it, and what was written stays.
    page.get_by_label("Name").fill("a/b")
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("alert")).to_contain_text("characters that it may not have")
    expect(page.get_by_label("Name")).to_have_value("a/b")
    page.get_by_label("Name").fill("notes")
    page.get_by_role("button", name="Make it").click()
    visitor.said("keep a copy of the file identity")
    page.get_by_role("link", name="Make a bucket").click()
    page.get_by_label("Name").fill("letters")
    page.get_by_role("button", name="Make it").click()
    visitor.said("The bucket is made.")
    row = page.get_by_role("row").filter(has_text="letters")
    row.get_by_role("link", name="Rename").click()
    page.get_by_label("Name").fill("notes")
    page.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("alert")).to_contain_text("is called `notes` already")
    page.get_by_label("Name").fill("größe")
    page.get_by_role("button", name="Rename").click()
    visitor.said("has its name")
    expect(row).to_have_count(0)

    # What is in it, and where it is to be seen.
    with open("today.md", "w") as file:
        file.write("text\n")
    gate("bucket", "add", "notes", "today.md")
    gate("mount", "add", "notes", f"{HOME}/shown", "--start")
    visitor.go("Buckets")
    row = page.get_by_role("row").filter(has_text="notes")
    expect(row.locator("td[data-label=Files]")).to_have_text("1")
    expect(row.locator("td[data-label='Last change']")).to_contain_text("20")
    expect(row).to_contain_text("/shown running")
    looks(browser, ["/buckets", "/buckets/create", f"/buckets/{id_of('notes')}/delete"])

    # What is in use stays.
    row.get_by_role("link", name="Delete").click()
    expect(page.get_by_text("All of its files are lost, and every version of them.")).to_be_visible()
    page.get_by_role("button", name="Delete it for good").click()
    visitor.heading("That did not work")
    expect(page.get_by_text("the bucket is used")).to_be_visible()
    page.get_by_role("link", name="Back").click()
    gate("mount", "remove", "-f", f"{HOME}/shown")
    row.get_by_role("link", name="Delete").click()
    page.get_by_role("link", name="Leave it as it is").click()
    row.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete it for good").click()
    visitor.said("deleted")
    expect(row).to_have_count(0)
    assert "notes" not in gate("bucket", "list")
    visitor.leave()


def id_of(name: str) -> str:
    lines = [line.split("\t") for line in gate("bucket", "list", "--plain").splitlines()]
    return next(line[0] for line in lines if line[1] == name)


def looks(browser: Browser, paths: list[str]) -> None:
    """Has pages judged by what judges them, at a desk and on a phone."""
    for device, width, scheme in [("desk", 1200, "light"), ("phone", 390, "dark")]:
        options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
        visitor = Visitor(browser, **options)
        visitor.sign_in(ADMIN)
        visitor.heading("Overview")
        for number, path in enumerate(paths):
            visitor.page.goto(path)
            wide = visitor.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{path} is {wide} wide on a {device}"
            visitor.is_sound()
            name = path.split("?")[0].split("/")[-1][:8]
            visitor.picture(f"buckets-{device}-{number}-{name}")
        visitor.leave()


def reader(browser: Browser) -> None:
    """With a token that may only look."""
    gate("bucket", "create", "notes")
    with open("today.md", "w") as file:
        file.write("text\n")
    gate("bucket", "add", "notes", "today.md")
    visitor = Visitor(browser)
    page = visitor.page
    visitor.sign_in(READ, "/buckets")
    visitor.heading("Buckets")
    row = page.get_by_role("row").filter(has_text="notes")
    expect(row.locator("td[data-label=Files]")).to_have_text("")
    for name in ["Make a bucket", "Rename", "Delete"]:
        expect(page.get_by_role("link", name=name)).to_have_count(0)
    bucket = f"/buckets/{id_of('notes')}"
    looked = [bucket, *(f"{bucket}/{what}?path=/today.md" for what in ["raw", "history", "diff"])]
    for path in ["/buckets/create", f"{bucket}/rename", f"{bucket}/delete", *looked]:
        assert page.goto(path).status == 403, path
        expect(page.get_by_text("this takes a token with the scope admin")).to_be_visible()
    deeds = ["create", "rename", "delete", "upload", "mkdir", "move", "remove", "restore", "undo"]
    for deed in deeds:
        path = "/buckets/create" if deed == "create" else f"{bucket}/{deed}?path=/today.md"
        form = {"name": "other", "to": "/other"}
        assert page.request.post(path, form=form, headers={"Origin": URL}).status == 403, path
    assert gate("bucket", "cat", "notes", "today.md") == "text\n"
    visitor.leave()
    # Who may do everything does it from a page of here, and from no other.
    visitor = Visitor(browser)
    visitor.sign_in(ADMIN)
    visitor.heading("Overview")
    for headers in [{}, {"Origin": "https://example.org"}]:
        answer = visitor.page.request.post(f"{bucket}/delete", form={}, headers=headers)
        assert answer.status == 403, headers
    assert "notes" in gate("bucket", "list")
    visitor.leave()


def files(browser: Browser) -> None:
    """Looks at files, puts, renames and deletes them, without a script."""
    gate("bucket", "create", "notes")
    with open("today.md", "w") as file:
        file.write("# Today\n<b>bold</b>\n")
    with open("dot.gif", "wb") as file:
        file.write(base64.b64decode("R0lGODlhAQABAIABAP8AAP///ywAAAAAAQABAAACAkQBADs="))
    visitor = Visitor(browser, java_script_enabled=False)
    page = visitor.page
    visitor.sign_in(ADMIN, "/buckets")
    page.get_by_role("link", name="notes", exact=True).click()
    visitor.heading("notes")
    expect(page.get_by_text("Nothing is here.")).to_be_visible()
    page.get_by_label("Make a directory here").fill("docs")
    page.get_by_role("button", name="Make it").click()
    visitor.said("The directory is made.")
    page.get_by_role("link", name="docs/").click()
    trail = page.get_by_role("navigation", name="Where this is")
    expect(trail).to_contain_text("docs")
    page.get_by_label("Put files here").set_input_files(["today.md", "dot.gif"])
    page.get_by_role("button", name="Upload").click()
    visitor.said("2 files are stored.")
    expect(page.get_by_role("button", name="Undo that")).to_have_count(0)

    # What a file holds is text, whatever it says, or a picture, or kept.
    page.get_by_role("link", name="today.md", exact=True).click()
    expect(page.get_by_role("region", name="What it holds")).to_contain_text("<b>bold</b>")
    with page.expect_download() as kept:
        page.get_by_role("link", name="Download").click()
    with open(kept.value.path()) as file:
        assert file.read() == "# Today\n<b>bold</b>\n"
    assert kept.value.suggested_filename == "today.md", kept.value.suggested_filename
    trail.get_by_role("link", name="docs").click()
    page.get_by_role("link", name="dot.gif", exact=True).click()
    expect(page.get_by_role("img", name="What it holds")).to_be_visible()

    # What is there is not replaced unseen; what is done can be taken back.
    page.get_by_role("link", name="Rename").click()
    page.get_by_label("Where it is to be").fill("/docs/today.md")
    page.get_by_role("button", name="Move it").click()
    expect(page.get_by_role("alert")).to_contain_text("something is there already")
    page.get_by_label("Where it is to be").fill("/red.gif")
    page.get_by_role("button", name="Move it").click()
    visitor.said("It is moved.")
    row = page.get_by_role("row").filter(has_text="today.md")
    row.get_by_role("button", name="Delete").click()
    visitor.said("It is deleted. Its versions stay.")
    expect(row).to_have_count(0)
    page.get_by_role("button", name="Undo that").click()
    visitor.said("It is taken back.")
    expect(row).to_have_count(1)
    assert gate("bucket", "ls", "notes", "-R") == "docs/\ndocs/today.md\nred.gif\n"
    page.get_by_label("Make a directory here").fill("today.md")
    page.get_by_role("button", name="Make it").click()
    visitor.heading("That did not work")
    page.get_by_role("link", name="Back").click()
    expect(trail).to_contain_text("docs")
    visitor.leave()

    bucket = f"/buckets/{id_of('notes')}"
    shown = ["", "?path=/docs/today.md", "?path=/red.gif", "/move?path=/red.gif", "?at=~1"]
    looks(browser, [bucket + path for path in shown])
    visitor = Visitor(browser)
    visitor.sign_in(ADMIN, f"{bucket}?path=/red.gif")
    picture = visitor.page.get_by_role("img", name="What it holds")
    expect(picture).to_be_visible()
    assert picture.evaluate("picture => picture.naturalWidth") == 1
    visitor.leave()


def past(browser: Browser) -> None:
    """Goes through the versions of a bucket, and back, without a script."""
    gate("bucket", "create", "notes")
    for text in ["one\ntwo\n", "one\n<b>2</b>\n"]:
        with open("today.md", "w") as file:
            file.write(text)
        gate("bucket", "add", "notes", "today.md")
    gate("bucket", "mv", "notes", "today.md", "yesterday.md")
    visitor = Visitor(browser, java_script_enabled=False)
    page = visitor.page
    bucket = f"/buckets/{id_of('notes')}"
    visitor.sign_in(ADMIN, bucket)
    page.get_by_role("link", name="yesterday.md", exact=True).click()
    page.get_by_role("link", name="History").click()
    visitor.heading("History")
    rows = page.get_by_role("row").filter(has_text="Changes")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("renamed from /today.md")
    rows.nth(1).get_by_role("link", name="Changes").click()
    visitor.heading("What differs")
    expect(page.locator(".diff .gone")).to_have_text("-two")
    expect(page.locator(".diff .new")).to_have_text("+<b>2</b>")
    page.get_by_label("From version").fill("~2")
    page.get_by_label("To version").fill("~0")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("2 differences")).to_be_visible()
    page.get_by_label("From version").fill("never")
    page.get_by_role("button", name="Compare").click()
    visitor.heading("That did not work")
    page.get_by_role("link", name="Back").click()
    page.get_by_role("link", name="notes", exact=True).click()
    page.get_by_role("link", name="History").click()
    rows.first.get_by_role("button", name="Undo").click()
    visitor.said("It is taken back.")
    expect(page.get_by_role("link", name="today.md", exact=True)).to_be_visible()
    page.get_by_role("link", name="History").click()
    expect(rows).to_have_count(4)
    rows.last.locator("code").first.click()
    expect(page.get_by_text("Nothing can be changed here.")).to_be_visible()
    page.get_by_role("button", name="Restore", exact=False).click()
    visitor.said("It is as it was.")
    assert gate("bucket", "cat", "notes", "today.md") == "one\ntwo\n"
    visitor.leave()
    looks(browser, [f"{bucket}/history", f"{bucket}/diff?from=~3", f"{bucket}?path=/today.md"])


walk({"kept": kept, "reader": reader, "files": files, "past": past})
