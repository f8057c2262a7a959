"""What the page does in the browser itself: the dialog and its keys, and the words of a lost connection."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import Walker
from tests.conftest import Server

pytestmark = pytest.mark.slow


def focused(walker: Walker) -> str:
    """The id of the nearest named element that has the focus."""
    return walker.page.evaluate("document.activeElement.closest('[id]')?.id ?? ''")


def inside(walker: Walker) -> bool:
    return walker.page.evaluate("!!document.activeElement.closest('#preview')")


def test_the_preview_is_a_dialog_that_holds_the_focus_and_closes_on_escape(
    serve: Callable[..., Server], walk: Callable[..., Walker]
) -> None:
    walker = walk(serve().address, "zh").open()
    keyboard, dialog = walker.page.keyboard, walker.page.locator("#preview")

    def opened() -> Any:
        walker.page.locator("#preview_dataset").focus()
        keyboard.press("Enter")
        dialog.wait_for()
        walker.wait(lambda: inside(walker), "the focus in the dialog", 5)

    opened()
    assert (dialog.get_attribute("role"), dialog.get_attribute("aria-label")) == ("dialog", "预览数据集")
    # What the check brings replaces what it had shown, and may take the focus of that with it.
    walker.wait(lambda: "重新检查" in walker.text("preview_steer"), "the end of the check")
    for _ in range(12):
        keyboard.press("Tab")
        walker.wait(lambda: inside(walker), "Tab to stay in the dialog", 5, lambda: focused(walker))
    keyboard.press("Shift+Tab")
    assert inside(walker)

    walker.field("preview_dataset_name").click()
    walker.page.get_by_role("option").first.wait_for()
    keyboard.press("Escape")
    assert dialog.is_visible(), "the first Escape closes the list"
    walker.field("preview_page").focus()
    keyboard.press("Escape")
    dialog.wait_for(state="detached")
    walker.wait(lambda: focused(walker) == "preview_dataset", "the focus where it was", 5, lambda: focused(walker))

    opened()
    walker.page.mouse.click(5, 300)
    dialog.wait_for(state="detached")
    assert walker.errors == []


@pytest.mark.thorough
def test_one_request_that_fails_does_not_take_the_dialog_away(
    serve: Callable[..., Server], walk: Callable[..., Walker]
) -> None:
    walker = walk(serve().address, "zh").open()
    walker.click("预览数据集")
    walker.wait_text("preview_steer", "重新检查")
    failed: list[str] = []

    def fail(route: Any) -> None:
        failed.append(route.request.url)
        route.abort("connectionreset")

    walker.page.route("**/gradio_api/run/predict", fail, times=2)
    walker.wait(lambda: len(failed) == 2, "two requests to fail", 10)
    walker.page.wait_for_timeout(4000)  # Gradio would have loaded the page again two seconds after the first
    assert walker.page.locator("#preview").is_visible()
    assert walker.errors == []


@pytest.mark.thorough
@pytest.mark.parametrize(("language", "title", "words"), [("zh", "连接中断", "无法连接到服务器"),
                                                          ("en", "Connection lost", "cannot reach its server")])  # fmt: skip
def test_a_lost_connection_is_said_in_the_pages_language(
    language: str, title: str, words: str, serve: Callable[..., Server], walk: Callable[..., Walker]
) -> None:
    server = serve()
    walker = walk(server.address, language).open()
    server.stop()
    toast = walker.page.locator("[data-testid=toast-body]")
    toast.wait_for()
    walker.wait(lambda: words in toast.inner_text(), "the sentence", 10, toast.inner_text)
    assert title in toast.inner_text()
    assert "Attempting" not in toast.inner_text()
    assert "Error" not in toast.inner_text()
