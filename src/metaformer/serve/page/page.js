// The page: models are chosen, images come in, and one or many of them are shown with their answers.

import { askMany, Item } from "./asking.js";
import { find, make, number, plural, save, slider } from "./dom.js";
import { makeGallery, progress } from "./gallery.js";
import { takeImages } from "./giving.js";
import { busy, refusal } from "./marks.js";
import { makePanel } from "./panel.js";
import { close } from "./pictures.js";
import { drawn, file, SAMPLES } from "./samples.js";
import { ask, Refused, setKeyAsker } from "./service.js";
import { finds } from "./summary.js";

const QUESTIONS = {
  classification: "What is in the picture?", detection: "Where are the things in the picture?",
  instances: "Where are the things in the picture?", segmentation: "What is where in the picture?",
};
const TASKS = {
  classification: "names pictures", detection: "finds things",
  instances: "finds things and their outlines", segmentation: "divides pictures into regions",
};

const look = { threshold: 0.5, opacity: 0.5, heat: 0 };
const items = [];
const chosen = []; // one model or two
let service = null; // what /models told
let current = null; // { item, picture, panels } of the image that is shown in full
let turns = 0; // so that what comes late is not shown over what came after
let running = null; // what ends asking about many

/** Tells who listens instead of looking; two models may answer at once, so the last two are kept. */
function say(words) {
  const status = find("status");
  status.append(make("p", {}, words));
  while (status.children.length > 2) status.firstChild.remove();
}

const numbers = () => new Map(chosen[0].classes.map((name, i) => [name, i]));

// --- models -----------------------------------------------------------------------------------------------------------

async function start() {
  find("trouble").replaceChildren();
  find("facts").textContent = "Asking which models there are …";
  try {
    const waiting = (told) => (find("facts").textContent = told ? busy(told) : "");
    for (service = null; service === null || service.status === "starting" || service.models.length === 0; ) {
      if (service !== null) await new Promise((resolve) => setTimeout(resolve, 1000));
      service = (await ask("models", { waiting })).told;
      find("facts").textContent = "The service is opening its models …";
    }
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    find("facts").textContent = "";
    trouble(error, start);
    return;
  }
  const { models } = service;
  chosen.splice(0, 2, models.find(({ name }) => name === service.default) ?? models[0]);
  const options = () => models.map(({ name }) => make("option", { value: name }, name));
  find("model").replaceChildren(...options());
  find("beside").replaceChildren(make("option", { value: "" }, "no other"), ...options());
  find("model").value = chosen[0].name;
  find("programs").hidden = service.keys; // a link cannot bring one
  for (const label of document.querySelectorAll(".models")) label.hidden = models.length < 2;
  find("limits").textContent = `At most ${number(Math.round(service.limits.image / 2 ** 20))} MB an image.`;
  describe();
  for (const button of document.querySelectorAll("#give button")) button.disabled = false;
  ready(service);
}

let ready;
const opened = new Promise((resolve) => (ready = resolve));

function describe() {
  const [model] = chosen;
  find("question").textContent = QUESTIONS[model.task];
  const size = model.size ? `sees ${model.size} × ${model.size} pixels, ` : "";
  const knows = plural(model.classes.length, "class", "classes");
  const runs = `runs in ${model.engine} (${model.precision})`;
  find("facts").textContent = `${model.name} ${TASKS[model.task]}, knows ${knows}, ${size}${runs}.`;
  find("classes").textContent = model.classes.join(" · ");
  find("known").hidden = false;
  for (const option of find("beside").options) option.disabled = option.value === model.name;
}

function choose() {
  const named = (name) => service.models.find((model) => model.name === name);
  const [first, second] = [named(find("model").value), named(find("beside").value)];
  if (second === first) find("beside").value = "";
  chosen.splice(0, 2, ...[first, second === first ? null : second].filter(Boolean));
  describe();
  if (current) show(current.item);
  else if (items.length > 0) showAll();
}

// --- images -----------------------------------------------------------------------------------------------------------

async function add(files, made = false) {
  if (files.length === 0) return;
  await opened;
  const added = [...files].map((one) => new Item(one, made));
  items.push(...added);
  document.body.classList.add("begun");
  if (added.length === 1) await show(added[0]);
  else showAll();
}

async function show(item, focus = null) {
  const turn = ++turns;
  const picture = await item.picture();
  if (turn !== turns) return close(picture);
  leave();
  find("many").hidden = find("agreement").hidden = true;
  find("one").hidden = false;
  current = { item, picture, panels: [] };
  const hooks = { look, say, limits: service.limits, keys: service.keys, several: chosen.length > 1, changed };
  current.panels = chosen.map((model) => makePanel(item, picture, model, hooks));
  find("panels").classList.toggle("two", chosen.length > 1);
  find("panels").replaceChildren(...current.panels.map(({ element }) => element));
  find("save").hidden = !item.made;
  navigation();
  if (focus) find(focus).focus();
  find("answers").scrollIntoView({ block: "nearest" });
}

function leave() {
  for (const panel of current?.panels ?? []) panel.end();
  close(current?.picture);
  current = null;
}

function navigation() {
  const place = items.indexOf(current.item);
  find("steps").hidden = items.length < 2;
  find("back").textContent = `All ${items.length} images`;
  find("place").textContent = `${place + 1} of ${items.length}`;
  find("previous").disabled = place === 0;
  find("next").disabled = place === items.length - 1;
}

function step(by, focus = null) {
  const item = items[items.indexOf(current.item) + by];
  if (item) show(item, focus);
}

function changed() {
  if (current === null) update();
  else if (current.panels.length === 2) agreement();
}

/** Says whether two classifiers agree. */
function agreement() {
  const records = chosen.map((model) => (model.task === "classification" ? current.item.record(model) : null));
  const both = records.every((record) => record && !record.error);
  find("agreement").hidden = !both;
  if (!both) return;
  const [one, other] = records.map(({ label }) => label);
  find("agreement").textContent = one === other ? `Both say ${one}.` : `They differ: ${one} and ${other}.`;
}

// --- many -------------------------------------------------------------------------------------------------------------

const gallery = makeGallery(() => ({ items, model: chosen[0], look, numbers: numbers() }), (item) => show(item, "back"));
const threshold = slider("At least this sure", look.threshold, (part) => {
  look.threshold = Math.max(part, 0.05);
  gallery.update();
});
find("bar").append(threshold.element);

function showAll(focus = null) {
  turns++;
  leave();
  find("one").hidden = true;
  find("many").hidden = false;
  find("agreement").hidden = true;
  threshold.element.hidden = !finds(chosen[0].task);
  threshold.set(look.threshold);
  const [first, second] = chosen;
  find("alone").hidden = !second;
  if (second) find("alone").textContent = `These answers, and the CSV's, are of ${first.name}. Open an image to see that of ${second.name} beside it.`;
  run();
  if (focus) requestAnimationFrame(() => requestAnimationFrame(() => gallery.focus(focus)));
}

let ended = Promise.resolve(); // of what was asked before

/** Asks about all that has no answer. What is running already ends first, for what it had asked is asked again. */
async function run() {
  running?.abort();
  const control = (running = new AbortController());
  find("trouble").replaceChildren();
  update();
  const before = ended;
  let end;
  ended = new Promise((resolve) => (end = resolve));
  await before;
  try {
    control.signal.throwIfAborted();
    await askMany(items, chosen[0], service.limits, control.signal, () => panelsToo());
    if (running === control) say(progress(items, chosen[0]).words);
  } catch (error) {
    if (error instanceof Refused) trouble(error, run);
    else if (error.name !== "AbortError") throw error;
    else if (running === control) say("Cancelled.");
  } finally {
    end();
  }
  if (running === control) running = null;
  panelsToo();
}

function panelsToo() {
  update();
  for (const panel of current?.panels ?? []) panel.update();
}

function update() {
  const { done, words } = progress(items, chosen[0]);
  find("progress").hidden = done === items.length;
  find("progress").max = items.length;
  find("progress").value = done;
  find("count").textContent = words;
  find("stop").hidden = running === null;
  find("go").hidden = running !== null || done === items.length;
  const waiting = running === null ? null : items.map((item) => item.answer(chosen[0])?.waiting).find(Boolean);
  find("busy").hidden = !waiting;
  if (waiting) find("busy").textContent = busy(waiting);
  gallery.update();
}

function clear() {
  running?.abort();
  running = null;
  turns++;
  leave();
  items.length = 0;
  gallery.forget();
  find("trouble").replaceChildren();
  for (const id of ["one", "many", "agreement"]) find(id).hidden = true;
  document.body.classList.remove("begun");
  find("choose").focus();
}

// --- what goes wrong, and keys ----------------------------------------------------------------------------------------

function trouble(error, again) {
  find("trouble").replaceChildren(refusal(error.message, error.request, again));
}

setKeyAsker((wrong) => {
  const dialog = find("key");
  find("wrong").hidden = !wrong;
  find("word").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const closed = () => resolve((dialog.returnValue === "use" && find("word").value) || null);
    dialog.addEventListener("close", closed, { once: true });
  });
});

// --- the page itself --------------------------------------------------------------------------------------------------

for (const sample of SAMPLES) {
  const picture = drawn(sample, 144);
  picture.setAttribute("aria-hidden", "true");
  const press = async () => add([await file(sample)], true);
  const button = { type: "button", className: "sample", disabled: true, onclick: press };
  find("samples").append(make("button", button, picture, make("span", {}, sample.title)));
}
const touched = matchMedia("(pointer: coarse)").matches || (navigator.maxTouchPoints > 0 && innerWidth <= 760);
document.documentElement.classList.toggle("touch", touched);
takeImages(add, say);
find("model").addEventListener("change", choose);
find("beside").addEventListener("change", choose);
find("back").addEventListener("click", () => showAll(current.item));
find("previous").addEventListener("click", () => step(-1, "previous"));
find("next").addEventListener("click", () => step(1, "next"));
find("clear").addEventListener("click", clear);
find("stop").addEventListener("click", () => running?.abort());
find("go").addEventListener("click", () => run());
find("save").addEventListener("click", () => save(current.item.file, current.item.name));
document.addEventListener("keydown", (event) => {
  if (current === null || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("input, select, textarea, dialog, pre")) return;
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else if (event.key === "Escape" && items.length > 1) showAll(current.item);
});
start();
