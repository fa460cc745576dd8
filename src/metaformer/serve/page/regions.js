// A segmenter's answer: regions over the image, and a legend with their shares in which each can be shown alone or hidden.

import { make, percent, slider } from "./dom.js";
import { paintRegions, readRegions, regionAt } from "./drawing.js";
import { swatch } from "./marks.js";
import { largestFirst } from "./summary.js";

/** The view of a record: { element, paint, pointed }. */
export function regionsView({ record, model, look, redraw }) {
  const hidden = new Set(); // class numbers
  const rows = new Map();
  let map = null;
  let canvas = null;
  let active = null;

  const repaint = () => {
    canvas = map && paintRegions(map, { classes: model.classes.length, hidden, active });
    redraw();
  };
  const point = (index) => {
    if (index === active) return;
    rows.get(active)?.classList.remove("active");
    active = index;
    rows.get(active)?.classList.add("active");
    repaint();
  };

  const list = largestFirst(record).map(({ label, index, share }) => {
    const press = () => {
      hidden.has(index) ? hidden.delete(index) : hidden.add(index);
      button.setAttribute("aria-pressed", String(!hidden.has(index)));
      repaint();
    };
    const bar = make("span", { className: "bar" }, make("span", { className: "fill" }));
    bar.firstChild.style.width = `${100 * share}%`;
    const [come, go] = [() => point(index), () => point(null)];
    const button = make(
      "button",
      {
        type: "button", className: "row", "aria-pressed": "true", title: `Show or hide ${label}`,
        onclick: press, onfocus: come, onblur: go, onpointerenter: come, onpointerleave: go,
      },
      swatch(index), make("span", { className: "name" }, label), make("span", { className: "value" }, percent(share)), bar,
    );
    rows.set(index, button);
    return make("li", {}, button);
  });
  const opacity = slider("Opacity", look.opacity, (part) => {
    look.opacity = part;
    redraw();
  });
  const controls = make("div", { className: "controls" }, opacity.element);
  readRegions(record).then((read) => {
    map = read;
    repaint();
  });
  return {
    element: make("div", {}, controls, make("ul", { className: "bars regions" }, ...list)),
    paint(pen, W, H) {
      if (canvas === null) return;
      pen.globalAlpha = look.opacity;
      pen.imageSmoothingEnabled = canvas.width > W;
      pen.drawImage(canvas, 0, 0, W, H);
      pen.globalAlpha = 1;
    },
    pointed(u, v) {
      const index = u === null || map === null ? null : regionAt(map, u, v);
      point(index);
      return index === null ? null : (model.classes[index] ?? "none of its classes");
    },
  };
}
