"""The page with many images: progress, order, filter, CSV, cancelling, and names that mean harm."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serve.browser import Front, View, chromium, picture, serving, until, until_page, viewing

HARM = "<img src=x onerror=alert(1)>.jpg"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def front() -> Iterator[Front]:
    with serving() as served:
        yield served


def done(view: View, count: int) -> None:
    """Waits until so many cards have answers."""
    view.see(".card", count)
    view.page.locator("#progress").wait_for(state="hidden")


def saved(view: View) -> tuple[str, list[list[str]]]:
    """The name of the CSV file, and its rows."""
    with view.page.expect_download() as download:
        view.page.click("#csv")
    text = Path(download.value.path()).read_bytes().decode("utf-8-sig")
    return download.value.suggested_filename, list(csv.reader(io.StringIO(text, newline="")))


def test_many_are_asked_a_few_at_a_time_and_sorted(browser: Any, front: Front) -> None:
    given = {f"{i}.jpg": picture(shade=20 * i) for i in (3, 10, 1, 2, 7, 5, 6, 4, 8, 9)}
    with viewing(browser, front) as view:
        view.give({**given, "broken.jpg": b"broken"})
        done(view, 11)
        count = view.page.inner_text("#count")
        orders = {}
        for order in ("given", "name", "label", "high", "low"):
            view.page.select_option("#order", order)
            view.page.wait_for_timeout(100)
            orders[order] = view.texts(".card .file")
        view.page.select_option("#order", "label")
        view.page.wait_for_timeout(100)
        labels = view.texts(".card .words")
        view.page.fill("#filter", "BROKEN")
        view.see(".card", 1)
        view.page.fill("#filter", "")
        chip = view.see("#counts .chip").first
        how_many = int(chip.locator(".count").inner_text())
        chip.click()
        view.see(".card", how_many)
    assert count == "11 images, 1 without an answer"
    requests = [len(job.images) for job in front.pool.jobs]
    assert sum(requests) == 11
    assert 2 <= len(requests) < 11
    assert max(requests) <= 8
    assert orders["given"] == [*given, "broken.jpg"]
    assert orders["name"] == [*(f"{i}.jpg" for i in range(1, 11)), "broken.jpg"]
    assert labels[:-1] == sorted(labels[:-1])
    assert labels[-1] == "cannot be read as an image"
    assert orders["high"][-1] == orders["low"][-1] == "broken.jpg"


def test_with_two_models_the_grid_says_whose_answers_it_shows(browser: Any, front: Front) -> None:
    with viewing(browser, front) as view:
        view.give({f"{i}.jpg": picture(shade=20 * i) for i in (1, 2)})
        done(view, 2)
        assert view.page.is_hidden("#alone")
        view.page.select_option("#beside", "other")
        words = view.see("#alone:not([hidden])").inner_text()
    assert words == "These answers, and the CSV's, are of digits. Open an image to see that of other beside it."


def test_csv_holds_the_answers_and_no_formula(browser: Any, front: Front) -> None:
    names = ["=1+1.jpg", "+a.jpg", "-a.jpg", "@a.jpg", 'a "b", c.jpg', HARM]
    alarms: list[str] = []
    with viewing(browser, front) as view:
        view.page.on("dialog", lambda dialog: (alarms.append(dialog.message), dialog.dismiss()))
        view.give({name: picture(shade=i) for i, name in enumerate(names)} | {"broken.heic": b"no"})
        done(view, 7)
        shown = view.texts(".card .file")
        file, rows = saved(view)
        view.page.click(f".card:has-text({HARM!r})")
        caption = view.see("figcaption").inner_text()
    assert alarms == []
    assert shown == [*names, "broken.heic"]
    assert caption.startswith(HARM)
    assert file == "answers-digits.csv"
    assert rows[0][:5] == ["name", "label", "probability", "label_2", "probability_2"]
    assert rows[0][-1] == "error"
    assert [row[0] for row in rows[1:]] == ["'=1+1.jpg", "'+a.jpg", "'-a.jpg", "'@a.jpg", *names[4:], "broken.heic"]
    assert all(float(row[2]) == 0.6 for row in rows[1:-1])
    assert rows[-1][1:] == [*[""] * 10, "cannot be read as an image"]
    assert {len(row) for row in rows} == {12}


def test_csv_of_boxes_is_in_the_images_own_pixels(browser: Any, front: Front) -> None:
    with viewing(browser, front) as view:
        view.see(".sample:enabled")
        view.page.select_option("#model", "boxes")
        view.give({"a.jpg": picture((400, 200)), "b.jpg": picture((40, 20))})
        done(view, 2)
        _, rows = saved(view)
    assert rows[0] == ["name", "label", "score", "x0", "y0", "x1", "y1", "error"]
    assert rows[1:3] == [
        ["a.jpg", "date", "0.9", "0", "0", "200", "100", ""],
        ["a.jpg", "fig", "0.6", "100", "50", "300", "150", ""],
    ]
    assert rows[3] == ["b.jpg", "date", "0.9", "0", "0", "20", "10", ""]


def test_boxes_of_an_image_that_was_scaled_down_are_scaled_up(browser: Any, front: Front) -> None:
    script = """async () => {
        const { csv } = await import("/page/summary.js");
        const record = { width: 100, height: 50, objects: [{ label: "nut", score: 0.9, box: [1, 2, 50.25, 50] }] };
        const item = { name: "a.jpg", width: 400, height: 200, record: () => record, answer: () => null };
        return csv([item], { task: "detection" }, 0.5);
    }"""
    with viewing(browser, front) as view:
        text = view.page.evaluate(script)
    assert text.splitlines()[1] == "a.jpg,nut,0.9,4,8,201,200,"


def test_many_can_be_cancelled_and_gone_on_with(browser: Any, front: Front) -> None:
    front.pool.seconds = 20.0
    with viewing(browser, front) as view:
        view.give({f"{i}.jpg": picture(shade=i) for i in range(20)})
        view.see("#count:has-text('0 of 20 images')")
        until(lambda: front.pool.busy >= 8)
        view.page.click("#stop")
        view.see("#go")
        until(lambda: front.pool.busy == 0)
        front.pool.seconds = 0.0
        view.page.click("#go")
        done(view, 20)
        until_page(view.page, lambda: view.page.inner_text("#count") == "20 images")


def test_images_that_come_while_others_are_asked_about_cost_none_its_answer(browser: Any, front: Front) -> None:
    front.pool.seconds = 1.0
    with viewing(browser, front) as view:
        view.give({f"{i}.jpg": picture(shade=i) for i in range(20)})
        until(lambda: front.pool.busy >= 8)
        view.give({f"{i}.jpg": picture(shade=i) for i in range(20, 25)})
        until_page(view.page, lambda: view.page.inner_text("#count") == "25 images")
        assert view.page.locator("#go").is_hidden()
        assert "not asked" not in view.texts(".card .words")


def test_an_overload_stops_with_a_sentence_and_loses_nothing(browser: Any, front: Front) -> None:
    def full(route: Any) -> None:
        told = '{"error": {"code": "queue_full", "message": "As many wait as may.", "request_id": "abc"}}'
        route.fulfill(status=503, body=told, content_type="application/json", headers={"Retry-After": "0"})

    with viewing(browser, front, allowed="503") as view:
        view.see(".sample:enabled")
        view.page.route("**/predict*", full)
        view.give({f"{i}.jpg": picture(shade=i) for i in range(20)})
        view.see("#trouble .note:has-text('As many wait as may.')")
        view.page.unroute("**/predict*")
        view.page.click("text=Retry")
        done(view, 20)
        until_page(view.page, lambda: view.page.inner_text("#count") == "20 images")
        assert view.page.locator("#trouble").inner_text() == ""


def test_one_that_is_refused_takes_no_others_with_it(browser: Any, front: Front) -> None:
    """The service takes no request over its bound; here a body with one certain image is."""

    def refuse(route: Any) -> None:
        if b'filename="large.jpg"' in route.request.post_data_buffer:
            told = '{"error": {"code": "too_large", "message": "That is too large.", "request_id": "abc"}}'
            route.fulfill(status=413, body=told, content_type="application/json")
        else:
            route.continue_()

    with viewing(browser, front, allowed="413") as view:
        view.see(".sample:enabled")
        view.page.route("**/predict*", refuse)
        view.give({name: picture(shade=i) for i, name in enumerate(("a.jpg", "large.jpg", "b.jpg"))})
        done(view, 3)
        words = view.texts(".card .words")
    assert words[1] == "That is too large."
    assert all(word.startswith("digit ") for word in (words[0], words[2]))


def test_an_image_among_many_is_shown_in_full(browser: Any, front: Front) -> None:
    with viewing(browser, front) as view:
        view.give({f"{i}.jpg": picture(shade=i) for i in range(3)})
        done(view, 3)
        asked = len(front.pool.jobs)
        view.page.click(".card:has-text('1.jpg')")
        view.see(".bars li", 5)
        assert view.page.inner_text("#place") == "2 of 3"
        view.page.click("#next")
        view.see("figcaption:has-text('2.jpg')")
        assert view.page.locator("#next").is_disabled()
        view.page.click("#back")
        view.see(".card:focus", 1)
        assert len(front.pool.jobs) == asked  # what is known is not asked again
        view.page.select_option("#model", "nuts")
        view.see(".card .words:has-text('date × 1')", 3)
