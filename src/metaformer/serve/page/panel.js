// One model's answer about one image: the image with what is drawn over it, and beside it bars, lists and sliders.

import { askOne, TOP } from "./asking.js";
import { copy, fileName, make, number, seconds } from "./dom.js";
import { labelsView } from "./labels.js";
import { busy, inked, refusal } from "./marks.js";
import { objectsView } from "./objects.js";
import { regionsView } from "./regions.js";
import { curl } from "./service.js";
import { makeStage } from "./stage.js";
import { finds, spoken, summary, unsure } from "./summary.js";

const PATIENCE = 400; // ms after which a wait is worth a word

/** { element, update, end }: asks where nothing was asked yet. `hooks` are look, limits, keys, say and changed. */
export function makePanel(item, picture, model, hooks) {
  const { look, limits, say, changed } = hooks;
  const gone = new AbortController();
  const numbers = new Map(model.classes.map((name, i) => [name, i]));
  const stage = makeStage((pen, W, H) => view?.paint(pen, W, H), (u, v) => view?.pointed(u, v) ?? null);
  const said = make("div", { className: "said" });
  const title = make("h2", { className: "model" }, model.name);
  const element = make(
    "article", { className: "panel", "aria-label": `${item.name}, asked of ${model.name}` },
    make("figure", {}, stage.element, make("figcaption", {}, ...fileName(item.name), size(item))),
    make("div", { className: "answer" }, title, said),
  );
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
    else if (answer?.state === "cancelled") said.replaceChildren(refusal("Cancelled.", null, start, "Ask again"));
    else if (answer) said.replaceChildren(refusal(answer.error.message, answer.error.request, start));
    stage.draw();
  }

  // --- while it waits ---

  const clock = make("span", {});
  function waitingFor(answer) {
    const cancel = make("button", { type: "button", onclick: () => answer.control.abort() }, "Cancel");
    const spinner = make("span", { className: "spinner", "aria-hidden": "true" });
    return [make("div", { className: "waiting" }, spinner, clock, cancel)];
  }

  function wait() {
    if (seen?.state !== "asking") return;
    const passed = performance.now() - seen.since;
    const { waiting } = seen;
    said.firstChild?.classList.toggle("early", passed < PATIENCE && !waiting);
    const text = waiting ? busy(waiting) : `Asking ${model.name} … ${(passed / 1000).toFixed(0)} s`;
    if (clock.textContent !== text) clock.textContent = text;
    if (waiting && waiting !== wait.told) say(text);
    wait.told = waiting;
  }

  // --- when there is an answer ---

  function showRecord(answer) {
    const { record } = answer;
    if (record.error) {
      said.replaceChildren(refusal(`${item.name}: ${sentence(record.error)}`, answer.request));
      return;
    }
    const about = { record, model, item, picture, numbers };
    const context = { ...about, limits, look, say, redraw: stage.draw, stop: gone.signal, changed: thresholdMoved };
    view = (finds(model.task) ? objectsView : model.task === "segmentation" ? regionsView : labelsView)(context);
    said.replaceChildren(verdict, view.element, note(answer), terminal());
    thresholdMoved();
    say(`${hooks.several ? `${model.name}: ` : ""}${spoken(record, model, look.threshold)}`);
  }

  const verdict = make("p", { className: "verdict" });
  function thresholdMoved() {
    const { parts } = summary(seen.record, model, look.threshold);
    const open = unsure(seen.record, model);
    verdict.classList.toggle("unsure", open);
    verdict.replaceChildren(...(open ? ["Unsure, perhaps "] : []), ...inked(parts));
    stage.describe(`${item.name}: ${spoken(seen.record, model, look.threshold)}`);
    changed();
  }

  function note({ seconds: took, sent }) {
    const parts = [`Answered in ${seconds(took)}.`];
    if (sent) parts.push(`Scaled down to ${number(sent.width)} × ${number(sent.height)} pixels here, to be sent sooner.`);
    return make("p", { className: "soft small took" }, parts.join(" "));
  }

  function terminal() {
    const options = model.task === "classification" ? { top: TOP } : { threshold: Number(look.threshold.toFixed(2)) };
    const code = make("code", {}, curl(model.name, item.name, item.file.type, options, hooks.keys));
    const button = make("button", { type: "button" }, "Copy");
    button.addEventListener("click", async () => {
      button.textContent = (await copy(code)) ? "Copied" : "Selected";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    const block = make("div", { className: "code" }, make("pre", { tabIndex: 0 }, code), button);
    return make("details", {}, make("summary", {}, "The same from a terminal"), block);
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
