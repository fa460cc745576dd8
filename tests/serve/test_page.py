"""The page, as it is served and as a browser shows it: one image, what goes wrong, and who may use it."""

import io
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from tests.serve.browser import PAGE, Front, chromium, picture, serving, until, until_page, viewing

BUSY = "503"  # what a browser's console says of it


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def front() -> Iterator[Front]:
    with serving() as served:
        yield served


# --- as it is served --------------------------------------------------------------------------------------------------


def test_files_have_types_a_policy_and_tags(front: Front) -> None:
    for name in ("", "page/page.js", "page/style.css", "page/icon.svg"):
        with urllib.request.urlopen(front.address + name) as answer:
            kind, policy, tag = (answer.headers[key] for key in ("Content-Type", "Content-Security-Policy", "ETag"))
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        kinds = {"": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
        assert kind.partition(";")[0] == kinds[name.rpartition(".")[2]]
        assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= set(policy.split("; "))
        assert "unsafe" not in policy
        again = urllib.request.Request(front.address + name, headers={"If-None-Match": tag})
        with pytest.raises(urllib.error.HTTPError, match="304"):
            urllib.request.urlopen(again)


@pytest.mark.parametrize("name", ["page/", "page/none.js", "page/../pages.py", "page/..%2fpages.py", "page/__init__.py"])
def test_nothing_else_is_served(name: str, front: Front) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(front.address + name)


def test_files_hold_no_address_no_markup_from_text_and_nothing_inline() -> None:
    texts = {file.name: file.read_text() for file in PAGE.iterdir()}
    scripts = {name for name in texts if name.endswith(".js")}
    html = texts["index.html"]
    assert max(text.count("\n") for text in texts.values()) <= 400
    for name, text in texts.items():
        assert set(re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]{2,}[^\s\"']*", text)) <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", text), name
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?! type=\"module\" src=)", html)
    assert {f"page/{name}" for name in scripts} == set(re.findall(r"page/\w+\.js", html))  # each is asked for at once


# --- one image --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_an_image_becomes_bars(how: str, browser: Any, front: Front) -> None:
    given = picture()
    with viewing(browser, front) as view:
        view.see(".sample:enabled")
        view.give({"cat <b>.jpg": given}, how)
        view.see(".bars li", 5)
        names, values = view.texts(".bars .name"), view.texts(".bars .value")
        widths = view.page.locator(".bars .fill").evaluate_all("fills => fills.map(fill => fill.style.width)")
        spoken = view.page.inner_text("#status")
        caption = view.page.inner_text("figcaption")
    job = front.pool.jobs[-1]
    assert (job.images, job.top) == ((given,), 5)  # as it was, to the byte
    assert all(re.fullmatch(r"digit \d", name) for name in names)
    assert values == ["60 %", "30 %", "15 %", "8 %", "4 %"]
    assert widths == ["60%", "30%", "15%", "7.5%", "3.75%"]
    assert f"{names[0]} 60" in spoken
    assert caption == "cat <b>.jpg · 200 × 100"


def test_near_a_tie_the_page_says_unsure_and_what_the_model_knows(browser: Any, front: Front) -> None:
    def tie(route: Any) -> None:
        top = [{"label": "ants", "probability": 0.51}, {"label": "bees", "probability": 0.49}]
        answer = {"model": "digits", "task": "classification", "seconds": 0.01}
        route.fulfill(json=answer | {"results": [{"name": "a.JPEG", **top[0], "top": top}]})

    with viewing(browser, front) as view:
        view.give({"b.jpg": picture()})
        view.see(".bars li", 5)
        assert view.page.locator(".verdict.unsure").count() == 0
        assert view.page.locator("text=It knows only 10 classes.").count() == 1
        view.page.click("#clear")
        view.page.route("**/predict*", tie)
        view.give({"a.JPEG": picture()})
        view.see(".bars li", 2)
        assert view.texts(".verdict.unsure") == ["Unsure, perhaps ants 51 %"]
        assert "unsure, ants" in view.page.inner_text("#status")
        assert view.page.inner_text(".whole") == ".JPEG"


def test_a_large_photo_is_scaled_down_for_a_classifier_alone(browser: Any, front: Front) -> None:
    given = picture((3000, 4000), rotated=True)
    with viewing(browser, front) as view:
        view.give({"photo.jpg": given})
        view.see(".bars li", 5)
        note, caption = view.page.inner_text(".took"), view.page.inner_text("figcaption")
        sent = front.pool.jobs[-1].images[0]
        view.page.select_option("#model", "boxes")
        view.see(".objects .row", 2)
        whole = front.pool.jobs[-1].images[0]
    assert "2,048 × 1,536" in note
    assert caption == "photo.jpg · 4,000 × 3,000"  # upright
    with Image.open(io.BytesIO(sent)) as image:
        assert (image.size, image.format) == ((2048, 1536), "JPEG")
    assert whole == given


def test_samples_are_drawn_alike_each_time(browser: Any, front: Front) -> None:
    for _ in range(2):
        with viewing(browser, front) as view:
            for i in range(3):
                view.see(".sample:enabled").nth(i).click()
                view.see(".bars li", 5)
                view.page.click("#clear")
    jobs = [job.images[0] for job in front.pool.jobs]
    assert jobs[:3] == jobs[3:]
    assert len(set(jobs)) == 3


def test_objects_are_asked_for_once_and_chosen_here(browser: Any, front: Front) -> None:
    with viewing(browser, front) as view:
        view.see(".sample:enabled")
        view.page.select_option("#model", "nuts")
        view.give({"table.png": picture(kind="png")})
        view.see(".objects .row", 2)
        slider = view.slider("At least this sure")
        slider.fill("20")
        view.see(".objects .row", 3)
        slider.fill("80")
        view.see(".objects .row", 1)
        verdict = view.texts(".verdict")
        slider.fill("99")
        view.see("text=It is that sure of nothing")
        slider.fill("20")
        view.page.click(".chip:has-text('fig')")
        view.see(".objects .row", 2)
        pressed = view.page.get_attribute(".chip:has-text('fig')", "aria-pressed")
    assert len(front.pool.jobs) == 1
    assert front.pool.jobs[0].threshold == 0.05
    assert verdict == ["date × 1"]
    assert pressed == "false"


def test_a_box_is_drawn_where_it_is_and_found_under_the_pointer(browser: Any, front: Front) -> None:
    """The first is left 0 to a half, top 0 to a half, with a triangle that has its tip at the middle of its lower edge."""
    with viewing(browser, front) as view:
        view.see(".sample:enabled")
        view.page.select_option("#model", "nuts")
        view.give({"table.png": picture(kind="png")})
        view.see(".objects .row", 2)
        mask = view.slider("Opacity of masks")
        mask.fill("0")
        bare = view.pixel(0.2, 0.2)
        mask.fill("100")
        covered = view.pixel(0.2, 0.2)
        outside = view.pixel(0.9, 0.1)
        box = view.see(".stage canvas").bounding_box()
        view.page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.1 * box["height"])
        tip, active = view.texts(".tip"), view.texts(".row.active .name")
        view.page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.1 * box["height"])
        view.see(".tip[hidden]", 1)
    assert bare == outside == (90, 120, 200)
    assert covered == (47, 111, 237)
    assert (tip, active) == (["date 90 %"], ["date"])


def test_regions_are_painted_named_and_hidden(browser: Any, front: Front) -> None:
    with viewing(browser, front) as view:
        view.see(".sample:enabled")
        view.page.select_option("#model", "streets")
        view.give({"street.png": picture(kind="png")})
        view.see(".regions .row", 3)
        opacity = view.slider("Opacity")
        opacity.fill("100")
        stripes = [view.pixel(0.5, place) for place in (0.1, 0.5, 0.9)]
        box = view.see(".stage canvas").bounding_box()
        named = []
        for place in (0.1, 0.5, 0.9):
            view.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + place * box["height"])
            named += view.texts(".tip")
        view.page.mouse.move(1, 1)
        view.page.click(".regions .row:has-text('sky')")
        view.page.mouse.move(1, 1)
        view.page.evaluate("document.activeElement.blur()")
        hidden = view.pixel(0.5, 0.5)
        opacity.fill("0")
        bare = view.pixel(0.5, 0.1)
    assert stripes == [(47, 111, 237), (232, 131, 58), (31, 157, 103)]
    assert named == ["road", "sky", "tree"]
    assert hidden == bare == (90, 120, 200)


def test_what_is_of_no_class_stays_bare(browser: Any, front: Front) -> None:
    script = """async () => {
        const { paintRegions } = await import("/page/drawing.js");
        const canvas = paintRegions({ width: 2, height: 1, values: [2, 255] }, { classes: 3 });
        return [...canvas.getContext("2d").getImageData(0, 0, 2, 1).data];
    }"""
    with viewing(browser, front) as view:
        assert view.page.evaluate(script) == [31, 157, 103, 255, 0, 0, 0, 0]


def test_where_it_looked_is_asked_for_when_it_is_wanted(browser: Any, front: Front) -> None:
    with viewing(browser, front) as view:
        view.give({"cat.png": picture(kind="png")})
        view.see(".bars li", 5)
        second = view.texts(".bars .name")[1]
        bare = view.pixel(0.5, 0.95)
        assert len(front.pool.jobs) == 1
        view.slider("Where it looked").fill("80")
        view.see("text=Bright is what spoke most")
        hot = view.pixel(0.5, 0.95)
        view.page.click(f".bars button:has-text('{second}')")
        view.see(f"text=Bright is what spoke most for {second}")
        view.slider("Where it looked").fill("0")
        gone = view.pixel(0.5, 0.95)
    assert [job.kind for job in front.pool.jobs] == ["predict", "explain", "explain"]
    assert front.pool.jobs[-1].label == second
    assert bare == gone != hot


def test_two_models_stand_side_by_side(browser: Any, front: Front) -> None:
    with viewing(browser, front) as view:
        view.see(".sample:enabled")
        view.page.select_option("#beside", "other")
        view.give({"cat.jpg": picture()})
        view.see(".bars li", 10)
        agreement = view.see("#agreement").inner_text()
        boxes = [panel.bounding_box() for panel in view.page.locator(".panel").all()]
        titles = view.texts(".panel h2")
        view.page.select_option("#beside", "")
        view.see(".panel", 1)
        assert view.page.locator("#agreement").is_hidden()
    assert re.fullmatch(r"Both say digit \d\.", agreement)
    assert titles == ["digits", "other"]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]


def test_the_command_asks_the_same_and_holds_no_key(browser: Any) -> None:
    with serving(keys=("secret",)) as front, viewing(browser, front, allowed="401") as view:
        view.page.fill("#word", "secret")
        view.page.press("#word", "Enter")
        view.see(".sample:enabled")
        view.give({"it's a $cat.jpg": picture()})
        view.see(".bars li", 5)
        view.page.click("text=The same from a terminal")
        command = view.page.inner_text(".code pre")
    assert command.replace("\\\n  ", "") == (
        """curl -H "Authorization: Bearer $METAFORMER_KEY" -H 'Content-Type: image/jpeg' """
        rf"""--data-binary '@it'\''s a $cat.jpg' '{front.address}predict?model=digits&top=5'"""
    )


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_what_is_no_image_is_sent_and_gives_the_sentence(browser: Any, front: Front) -> None:
    with viewing(browser, front) as view:
        view.give({"holiday.heic": b"what this browser cannot show"})
        words = view.see("main .note.warn").inner_text()
        shown = view.see(".placeholder").inner_text()
    assert front.pool.jobs[-1].images == (b"what this browser cannot show",)
    assert re.match(r"holiday\.heic: cannot be read as an image\.\s+Request [0-9a-f]{16}$", words)
    assert "cannot show holiday.heic" in shown


def test_a_busy_service_is_asked_again(browser: Any, front: Front) -> None:
    front.pool.mood = "full"
    with viewing(browser, front, allowed=BUSY) as view:
        view.give({"cat.jpg": picture()})
        view.see("text=The service is busy. Trying again in 2 s (try 2 of 5)")
        front.pool.mood = ""
        view.see(".bars li", 5)
    assert len(front.pool.jobs) == 1


def test_a_model_that_is_opened_again_is_not_called_busy(browser: Any, front: Front) -> None:
    front.pool.mood = "opening"
    with viewing(browser, front, allowed=BUSY) as view:
        view.give({"cat.jpg": picture()})
        view.see("text=The service is opening its models. Trying again in 3 s (try 2 of 5)")
        front.pool.mood = ""
        view.see(".bars li", 5)


def test_all_models_are_waited_for(browser: Any, front: Front) -> None:
    front.pool.models, front.pool.ready = {"digits": front.pool.all["digits"]}, False
    with viewing(browser, front) as view:
        view.see("text=opening its models")
        front.pool.models, front.pool.ready = front.pool.all, True
        view.see(".sample:enabled")
        assert len(view.texts("#model option")) == len(front.pool.all)


def test_a_service_that_stays_busy_is_left_in_peace_until_asked(browser: Any, front: Front) -> None:
    tries = 0

    def full(route: Any) -> None:
        nonlocal tries
        tries += 1
        told = '{"error": {"code": "queue_full", "message": "As many wait as may.", "request_id": "abc"}}'
        route.fulfill(status=503, body=told, content_type="application/json", headers={"Retry-After": "0"})

    with viewing(browser, front, allowed=BUSY) as view:
        view.page.route("**/predict*", full)
        view.give({"cat.jpg": picture()})
        words = view.see("main .note.warn").inner_text()
        assert "As many wait as may." in words
        assert "Request abc" in words
        assert tries == 5
        view.page.unroute("**/predict*")
        view.page.click("text=Retry")
        view.see(".bars li", 5)


def test_a_slow_answer_shows_seconds_and_can_be_cancelled(browser: Any, front: Front) -> None:
    front.pool.seconds = 20.0
    with viewing(browser, front) as view:
        view.give({"cat.jpg": picture()})
        view.see("text=Asking digits … 1 s")
        view.page.click(".waiting button")
        view.see("text=Cancelled.")
        until(lambda: front.pool.cancelled == 1)  # its place is free
        front.pool.seconds = 0.0
        view.page.click("text=Ask again")
        view.see(".bars li", 5)


def test_a_service_that_is_gone_is_a_sentence(browser: Any) -> None:
    with serving() as front, viewing(browser, front, allowed="ERR_") as view:
        view.see(".sample:enabled")
        view.page.context.set_offline(True)
        view.give({"cat.jpg": picture()})
        view.see("text=The service cannot be reached.")
        view.page.context.set_offline(False)
        view.page.click("text=Retry")
        view.see(".bars li", 5)


def test_a_key_is_asked_for_and_kept_until_the_tab_closes(browser: Any) -> None:
    with serving(keys=("secret", "other")) as front, viewing(browser, front, allowed="401") as view:
        view.see("dialog[open]")
        assert view.page.locator("#wrong").is_hidden()
        for word in ("guess", "secret"):
            view.page.fill("#word", word)
            view.page.press("#word", "Enter")
            if word == "guess":
                view.see("text=That key was not accepted.")
        view.see(".sample:enabled")
        view.page.reload()
        view.see(".sample:enabled").first.click()
        view.see(".bars li", 5)
        kept = view.page.evaluate("[Object.values(sessionStorage), Object.values(localStorage), document.cookie]")
        assert view.page.locator("#word").input_value() == ""
    assert kept == [["secret"], [], ""]


def test_without_a_key_the_page_says_so_and_asks_again(browser: Any) -> None:
    with serving(keys=("secret",)) as front, viewing(browser, front, allowed="401") as view:
        view.see("dialog[open]")
        view.page.keyboard.press("Escape")
        view.see("main .note.warn")
        view.page.click("text=Retry")
        view.see("dialog[open]")


def test_it_waits_until_the_models_are_open(browser: Any, front: Front) -> None:
    models, front.pool.models = front.pool.models, {}
    with viewing(browser, front) as view:
        view.see("text=opening its models")
        front.pool.models = models
        view.see(".sample:enabled")


# --- for everybody ----------------------------------------------------------------------------------------------------


def test_by_keyboard_alone(browser: Any, front: Front) -> None:
    with viewing(browser, front) as view:
        view.see(".sample:enabled")
        keys = view.page.keyboard

        def to(selector: str) -> None:
            for _ in range(40):
                if view.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                    return
                keys.press("Tab")
            raise AssertionError(f"{selector} is not reached")

        keys.press("Tab")
        assert view.page.evaluate("document.activeElement.className") == "skip"
        to(".sample")
        keys.press("Enter")
        view.see(".bars li", 5)
        to(".bars button")
        outline = view.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        keys.press("Enter")
        view.see("text=Bright is what spoke most")
        to("input[type=range]")
        keys.press("Home")
        until_page(view.page, lambda: view.texts("#panels .slider output") == ["0 %"])
        view.give({"second.png": picture(kind="png")})
        view.see("text=second.png")
        keys.press("ArrowLeft")
        view.see("figcaption:has-text('digit.png')")
        keys.press("Escape")
        view.see(".card", 2)
        to(".card")
        keys.press("Enter")
        view.see("#back:focus")
    assert outline == "solid"


def test_a_phone_takes_photographs(browser: Any, front: Front) -> None:
    with viewing(browser, front, width=390) as view:
        view.see("#photograph:enabled")
        assert view.page.get_attribute("#camera", "capture") == "environment"
        with view.page.expect_file_chooser() as chosen:
            view.page.tap("#photograph")
        chosen.value.set_files([{"name": "image.jpg", "mimeType": "image/jpeg", "buffer": picture()}])
        view.see(".bars li", 5)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_axe_finds_nothing_and_nothing_is_too_wide(width: int, scheme: str, browser: Any, front: Front) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found: dict[str, list[str]] = {}
    with viewing(browser, front, width=width, scheme=scheme) as view:

        def look(name: str) -> None:
            view.page.wait_for_timeout(450)  # until colours have faded in
            found[name] = [bad["id"] for bad in axe.run(view.page).response["violations"]]
            assert view.page.evaluate("document.documentElement.scrollWidth") <= width, name

        view.see(".sample:enabled")
        look("start")
        view.page.click(".sample >> nth=1")
        view.see(".bars li", 5)
        view.page.click("text=The same from a terminal")
        look("labels")
        view.page.select_option("#beside", "streets")
        view.see(".regions li", 3)
        look("two")
        view.page.select_option("#beside", "")
        view.page.select_option("#model", "nuts")
        view.see(".objects li", 2)
        look("objects")
        view.give({**{f"a rather long name of a photograph {i}.png": picture(shade=i) for i in range(9)}, "no.heic": b"no"})
        view.see(".card.bad, .bad .card", 1)
        view.page.locator("#progress").wait_for(state="hidden")
        look("many")
        view.page.click("text=no.heic")
        view.see("main .note.warn")
        look("refused")
    assert found == {name: [] for name in ("start", "labels", "two", "objects", "many", "refused")}
