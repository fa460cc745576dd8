// One model's answer about one image: the image with what is drawn over it, and beside it bars, lists and sliders.

import { askOne, TOP } from "./asking.js";
import { copy, make, number, seconds } from "./dom.js";
import { labelsView } from "./labels.js";
import { objectsView } from "./objects.js";
import { regionsView } from "./regions.js";
import { curl } from "./service.js";
import { makeStage } from "./stage.js";
import { finds, spoken, summary } from "./summary.js";

const PATIENCE = 400; // ms after which a wait is worth a word

/** { element, update, end }: asks where nothing was asked yet. `hooks` are look, limits, keys, say and changed. */
export function makePanel(item, picture, model, hooks) {
  const { look, limits, say, changed } = hooks;
  const gone = new AbortController();
  const numbers = new Map(model.classes.map((name, i) => [name, i]));
  const stage = makeStage((pen, W, H) => view?.paint(pen, W, H), (u, v) => view?.pointed(u, v) ?? null);
  const said = make("div", { className: "said" });
  const title = make("h3", {}, model.name);
  const element = make("article", { className: "panel", "aria-label": `${item.name}, asked of ${model.name}` },
    make("figure", {}, stage.element, make("figcaption", {}, item.name, size(item))), make("div", { className: "answer" }, title, said));
  let view = null;
  let seen; // the answer that is shown
  let ticking = 0;
  let own = false; // whether this panel asked: it ends what it began

  function update() {
    const answer = item.answer(model);
    if (answer === seen) return wait();
    seen = answer;
    view = null;
    clearInterval(ticking);
    if (answer?.state === "asking") {
      said.replaceChildren(...waitingFor(answer));
      ticking = setInterval(wait, 200);
      wait();
    } else if (answer?.state === "done") showRecord(answer);
    else if (answer) said.replaceChildren(...refused(answer));
    stage.draw();
  }

  // --- while it waits ---

  const clock = make("span", {});
  function waitingFor(answer) {
    const cancel = make("button", { type: "button", onclick: () => answer.control.abort() }, "Cancel");
    return [make("div", { className: "waiting" }, make("span", { className: "spinner", "aria-hidden": "true" }), clock, cancel)];
  }

  function wait() {
    if (seen?.state !== "asking") return;
    const passed = performance.now() - seen.since;
    const { waiting } = seen;
    said.firstChild?.classList.toggle("early", passed < PATIENCE && !waiting);
    const text = waiting
      ? `The service is busy. Trying again in ${Math.ceil(waiting.seconds)} s (try ${waiting.attempt} of ${waiting.of}) …`
      : `Asking ${model.name} … ${(passed / 1000).toFixed(0)} s`;
    if (clock.textContent !== text) clock.textContent = text;
    if (waiting && waiting !== wait.told) say(text);
    wait.told = waiting;
  }

  // --- when there is no answer ---

  function refused({ state, error }) {
    const words = state === "cancelled" ? "Cancelled." : error.message;
    const id = error?.request ? make("p", { className: "soft small" }, "Request ", make("code", {}, error.request)) : null;
    const retry = make("button", { type: "button", className: "primary", onclick: start }, state === "cancelled" ? "Ask again" : "Retry");
    return [make("div", { className: "note warn", role: state === "cancelled" ? "status" : "alert" }, make("p", {}, words), id, retry)];
  }

  // --- when there is one ---

  function showRecord(answer) {
    const { record } = answer;
    if (record.error) {
      const id = answer.request ? make("p", { className: "soft small" }, "Request ", make("code", {}, answer.request)) : null;
      said.replaceChildren(make("div", { className: "note warn", role: "alert" }, make("p", {}, sentence(record.error)), id));
      return;
    }
    const context = { record, model, item, picture, limits, look, numbers, say, redraw: stage.draw, stop: gone.signal, changed: thresholdMoved };
    view = (finds(model.task) ? objectsView : model.task === "segmentation" ? regionsView : labelsView)(context);
    said.replaceChildren(verdict, view.element, note(answer), terminal());
    thresholdMoved();
    say(`${hooks.several ? `${model.name}: ` : ""}${spoken(record, model, look.threshold)}`);
  }

  const verdict = make("p", { className: "verdict" });
  function thresholdMoved() {
    const { words } = summary(seen.record, model, look.threshold);
    verdict.textContent = words;
    stage.describe(`${item.name}: ${spoken(seen.record, model, look.threshold)}`);
    changed();
  }

  function note({ seconds: took, sent }) {
    const parts = [`Answered in ${seconds(took)}.`];
    if (sent) parts.push(`Sent as ${number(sent.width)} × ${number(sent.height)} pixels: scaled down here, so that it is quicker.`);
    return make("p", { className: "soft small" }, parts.join(" "));
  }

  function terminal() {
    const options = model.task === "classification" ? { top: TOP } : { threshold: Number(look.threshold.toFixed(2)) };
    const code = make("code", {}, curl(model.name, item.name, item.file.type, options, hooks.keys));
    const button = make("button", { type: "button" }, "Copy");
    button.addEventListener("click", async () => {
      button.textContent = (await copy(code)) ? "Copied" : "Selected";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    return make("details", {}, make("summary", {}, "The same from a terminal"), make("div", { className: "code" }, make("pre", { tabIndex: 0 }, code), button));
  }

  function start() {
    own = true;
    return askOne(item, model, picture, limits, () => {
      if (!gone.signal.aborted) update();
      changed();
    });
  }

  stage.show(picture, item.name);
  update();
  const answer = item.answer(model);
  if (answer === null || answer.state === "cancelled") start();
  return {
    element,
    update,
    redraw: stage.draw,
    end() {
      gone.abort();
      clearInterval(ticking);
      if (own && seen?.state === "asking") seen.control.abort();
    },
  };
}

const size = (item) => (item.width === null ? "" : ` · ${number(item.width)} × ${number(item.height)}`);

const sentence = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);
