// Many images as a grid: sorted, filtered, counted, and saved as CSV. A click shows one of them in full.

import { fileName, find, make, oncePerFrame, percent, plural, save } from "./dom.js";
import { drawObjects, paintRegions, readRegions } from "./drawing.js";
import { chip, inked, replaceChips } from "./marks.js";
import { counted, csv, enough, finds, summary } from "./summary.js";

const AT_ONCE = 120; // cards, then a button for more
const COUNTED = 8; // labels above the grid

const byName = (a, b) => a.item.name.localeCompare(b.item.name, undefined, { numeric: true }) || a.item.id - b.item.id;
const last = (value, direction) => (value === null ? Infinity : direction * value); // what has no answer comes last
const byLabel = (a, b) => Number(!a.label) - Number(!b.label) || a.label.localeCompare(b.label);
const ORDERS = {
  given: (a, b) => a.item.id - b.item.id,
  name: byName,
  label: (a, b) => byLabel(a, b) || last(a.value, -1) - last(b.value, -1),
  high: (a, b) => last(a.value, -1) - last(b.value, -1) || byName(a, b),
  low: (a, b) => last(a.value, 1) - last(b.value, 1) || byName(a, b),
};

/** { update, focus }: `show(item)` is called for a card; `state()` gives items, model, look and numbers. */
export function makeGallery(state, show) {
  const cards = new Map(); // item → card
  const [grid, filter, order, more] = ["grid", "filter", "order", "more"].map(find);
  let most = AT_ONCE;

  const update = oncePerFrame(() => {
    const { items, model, look } = state();
    const rows = items.map((item) => {
      const record = item.record(model);
      return { item, ...(record ? summary(record, model, look.threshold) : { label: "", value: null, parts: [], words: "" }) };
    });
    counts(rows, model, look);
    const wanted = filter.value.trim().toLowerCase();
    const fits = ({ item, words }) => !wanted || `${item.name}\n${words}`.toLowerCase().includes(wanted);
    const found = rows.filter(fits).sort(ORDERS[order.value]);
    const visible = found.slice(0, most);
    for (const row of visible) refresh(row, model, look);
    const elements = visible.map(({ item }) => cards.get(item).element);
    const same = elements.length === grid.children.length && elements.every((element, i) => grid.children[i] === element);
    if (!same) place(elements);
    more.hidden = found.length <= most;
    more.textContent = `Show ${Math.min(AT_ONCE, found.length - most)} more of ${found.length}`;
    find("none").hidden = found.length > 0;
  });

  /** Puts cards in order without losing the focus. */
  function place(elements) {
    const focused = grid.contains(document.activeElement) ? document.activeElement : null;
    grid.replaceChildren(...elements);
    focused?.focus({ preventScroll: true });
  }

  function counts(rows, model, look) {
    const labels = rows.flatMap(({ item, label }) => {
      const record = item.record(model);
      if (!record || record.error) return [];
      return finds(model.task) ? [...new Set(enough(record, look.threshold).map((object) => object.label))] : [label];
    });
    const { numbers } = state();
    const frequent = counted(labels.map((label) => ({ label }))).slice(0, COUNTED);
    const chips = frequent.map(([label, count]) => {
      const pressed = filter.value === label;
      return chip({ label, count, index: numbers.get(label), pressed }, () => {
        filter.value = pressed ? "" : label;
        update();
      });
    });
    const holder = find("counts");
    const same = chips.length === holder.children.length && chips.every((one, i) => one.isEqualNode(holder.children[i]));
    if (!same) replaceChips(holder, chips);
  }

  function refresh({ item, value, parts, words }, model, look) {
    if (!cards.has(item)) cards.set(item, makeCard(item, show));
    const { element, canvas, blank, line, fill, drawn } = cards.get(item);
    const answer = item.answer(model);
    const before = { asking: "…", cancelled: "not asked", failed: answer?.error?.message };
    const text = before[answer?.state];
    if (line.title !== (text ?? words)) line.replaceChildren(...(text === undefined ? inked(parts) : [text]));
    line.title = text ?? words;
    const bad = answer?.state === "failed" || Boolean(item.record(model)?.error);
    element.classList.toggle("bad", bad);
    fill.style.width = value === null ? "0" : percent(value).replace(/[^\d.]/g, "") + "%";
    blank.hidden = item.thumb !== null;
    canvas.hidden = item.thumb === null;
    blank.textContent = answer === null || answer.state === "asking" ? "" : "no preview";
    const record = item.record(model);
    const key = [item.thumb !== null, model.name, record !== null, finds(model.task) ? look.threshold : 0].join();
    if (key === drawn.key) return;
    drawn.key = key;
    draw(item, record, canvas, model, look, () => drawn.key === key);
  }

  async function draw(item, record, canvas, model, look, current) {
    if (item.thumb === null) return;
    const bitmap = await createImageBitmap(item.thumb);
    const map = record?.png ? await readRegions(record) : null;
    if (!current()) return bitmap.close();
    Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
    const pen = canvas.getContext("2d");
    pen.drawImage(bitmap, 0, 0);
    bitmap.close();
    if (record?.objects) {
      const how = { opacity: 0.4, numbers: state().numbers, names: false };
      drawObjects(pen, canvas.width, canvas.height, record, enough(record, look.threshold), how);
    } else if (map !== null) {
      pen.globalAlpha = 0.5;
      pen.drawImage(paintRegions(map, { classes: model.classes.length }), 0, 0, canvas.width, canvas.height);
    }
  }

  filter.addEventListener("input", update);
  order.addEventListener("change", update);
  more.addEventListener("click", () => {
    most += AT_ONCE;
    update();
  });
  find("csv").addEventListener("click", () => {
    const { items, model, look } = state();
    const blob = new Blob([csv(items, model, look.threshold)], { type: "text/csv;charset=utf-8" });
    save(blob, `answers-${model.name.replace(/[^\w.-]+/g, "-")}.csv`);
  });
  return {
    update,
    focus: (item) => (cards.get(item)?.element.querySelector("button") ?? filter).focus(),
    forget() {
      cards.clear();
      most = AT_ONCE;
    },
  };
}

function makeCard(item, show) {
  const canvas = make("canvas", { "aria-hidden": "true", hidden: true });
  const blank = make("span", { className: "blank" });
  const line = make("span", { className: "words" });
  const bar = make("span", { className: "bar" }, make("span", { className: "fill" }));
  const name = make("span", { className: "file" }, ...fileName(item.name));
  const thumb = make("span", { className: "thumb" }, canvas, blank);
  const button = make("button", { type: "button", className: "card", onclick: () => show(item) }, thumb, line, bar, name);
  return { element: make("li", {}, button), canvas, blank, line, fill: bar.firstChild, drawn: { key: "" } };
}

/** What the line above the grid says: how many, how far, and how many could not be read. */
export function progress(items, model) {
  const states = items.map((item) => item.answer(model)?.state ?? "new");
  const done = states.filter((state) => state === "done" || state === "failed").length;
  const bad = items.filter((item) => item.answer(model)?.state === "failed" || item.record(model)?.error).length;
  const whole = `${plural(items.length, "image")}${bad > 0 ? `, ${bad} without an answer` : ""}`;
  return { done, words: done < items.length ? `${done} of ${whole}` : whole };
}
