// A detector's answer: boxes and masks over the image, a threshold, and a list in which each can be found by name.

import { make, percent, plural, slider } from "./dom.js";
import { drawObjects, objectAt } from "./drawing.js";
import { LEAST } from "./asking.js";
import { chip, replaceChips, swatch } from "./marks.js";
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
      const [come, go] = [() => point(object), () => point(null)];
      const button = make(
        "button",
        { type: "button", className: "row", onfocus: come, onblur: go, onpointerenter: come, onpointerleave: go },
        swatch(numbers.get(object.label)),
        make("span", { className: "name" }, object.label),
        make("span", { className: "value" }, percent(object.score)),
      );
      rows.set(object, button);
    }
    const rest = shown.length - LISTED;
    const items = [...rows.values()].map((button) => make("li", {}, button));
    if (rest > 0) items.push(make("li", { className: "soft small" }, `and ${plural(rest, "more", "more")}`));
    if (over.length === 0) items.push(make("li", { className: "soft small" }, empty()));
    list.replaceChildren(...items);
    replaceChips(legend, counted(over).map(kind));
    redraw();
  }

  const empty = () =>
    record.objects.length === 0 ? "It found nothing here." : "It is that sure of nothing. Move the first slider to the left.";

  const kind = ([label, count]) =>
    chip({ label, count, index: numbers.get(label), pressed: !hidden.has(label) }, () => {
      hidden.has(label) ? hidden.delete(label) : hidden.add(label);
      fill();
    });

  const threshold = slider("At least this sure", Math.max(look.threshold, LEAST), (part) => {
    look.threshold = Math.max(part, LEAST);
    fill();
    changed();
  });
  const opacity = slider("Opacity of masks", look.opacity, (part) => {
    look.opacity = part;
    redraw();
  });
  const controls = make("div", { className: "controls" }, threshold.element, masked ? opacity.element : null);
  fill();
  return {
    element: make("div", {}, legend, controls, list),
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

