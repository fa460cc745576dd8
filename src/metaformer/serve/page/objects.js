// A detector's answer: boxes and masks over the image, a threshold, and a list in which each can be found by name.

import { css } from "./colours.js";
import { make, percent, plural, slider } from "./dom.js";
import { drawObjects, objectAt } from "./drawing.js";
import { LEAST } from "./asking.js";
import { counted, enough } from "./summary.js";

const LISTED = 100;

/** The view of a record: { element, paint, pointed }. `changed` is called when the threshold moves. */
export function objectsView({ record, model, numbers, look, redraw, changed }) {
  const hidden = new Set(); // labels
  const rows = new Map(); // object → its row
  const list = make("ul", { className: "objects" });
  const legend = make("div", { className: "chips", role: "group", "aria-label": "Kinds that are shown" });
  const masked = record.objects.some(({ polygons }) => polygons?.length);
  let active = null;
  let shown = [];

  const point = (object) => {
    if (object === active) return;
    rows.get(active)?.classList.remove("active");
    active = object;
    rows.get(active)?.classList.add("active");
    redraw();
  };

  function fill() {
    const over = enough(record, look.threshold);
    shown = over.filter(({ label }) => !hidden.has(label));
    if (!shown.includes(active)) active = null;
    rows.clear();
    for (const object of shown.slice(0, LISTED)) {
      const button = make(
        "button",
        { type: "button", className: "row", onfocus: () => point(object), onblur: () => point(null), onpointerenter: () => point(object), onpointerleave: () => point(null) },
        swatch(numbers.get(object.label)), make("span", { className: "name" }, object.label), make("span", { className: "value" }, percent(object.score)),
      );
      rows.set(object, button);
    }
    const rest = shown.length - LISTED;
    const items = [...rows.values()].map((button) => make("li", {}, button));
    if (rest > 0) items.push(make("li", { className: "soft small" }, `and ${plural(rest, "more", "more")}`));
    if (over.length === 0) items.push(make("li", { className: "soft small" }, empty()));
    list.replaceChildren(...items);
    legend.replaceChildren(...counted(over).map(([label, count]) => chip(label, count)));
    redraw();
  }

  const empty = () =>
    record.objects.length === 0 ? "It found nothing here." : `Nothing scores ${percent(look.threshold)}. Move the threshold to the left.`;

  function chip(label, count) {
    const press = () => {
      hidden.has(label) ? hidden.delete(label) : hidden.add(label);
      fill();
      [...legend.children].find((button) => button.dataset.label === label)?.focus();
    };
    const button = make("button", { type: "button", className: "chip", "aria-pressed": String(!hidden.has(label)), onclick: press },
      swatch(numbers.get(label)), make("span", {}, label), make("span", { className: "count" }, String(count)));
    button.dataset.label = label;
    return button;
  }

  const threshold = slider("Sure by at least", Math.max(look.threshold, LEAST), (part) => {
    look.threshold = Math.max(part, LEAST);
    fill();
    changed();
  });
  const opacity = slider("Opacity of masks", look.opacity, (part) => {
    look.opacity = part;
    redraw();
  });
  fill();
  return {
    element: make("div", {}, legend, make("div", { className: "controls" }, threshold.element, masked ? opacity.element : null), list),
    paint(pen, W, H) {
      drawObjects(pen, W, H, record, shown, { active, opacity: look.opacity, numbers, line: 2 * (devicePixelRatio || 1) });
    },
    pointed(u, v) {
      const object = u === null ? null : objectAt(record, shown, u, v);
      point(object);
      return object && `${object.label} ${percent(object.score)}`;
    },
  };
}

/** A patch of a class's colour. */
export function swatch(index) {
  const patch = make("span", { className: "swatch", "aria-hidden": "true" });
  patch.style.background = css(index ?? 0);
  return patch;
}
