// Colours of classes, the same on every image, and of heat.

const FIRST = [
  [47, 111, 237], [232, 131, 58], [31, 157, 103], [214, 69, 61], [138, 92, 240],
  [14, 154, 167], [214, 64, 159], [162, 116, 11], [106, 161, 17], [122, 134, 153],
];
const GOLDEN = 137.508; // degrees: as far apart as numbers can be that go on for ever

/** Red, green and blue of a class by its number. */
export function rgb(index) {
  if (index >= 0 && index < FIRST.length) return FIRST[index];
  const hue = (index * GOLDEN) % 360;
  const light = 0.45 + 0.12 * (index % 3) - 0.06;
  const part = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (light - 0.65 * Math.min(light, 1 - light) * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [part(0), part(8), part(4)];
}

export const css = (index, opacity = 1) => `rgb(${rgb(index).join(" ")} / ${opacity})`;

/** Black or white, whichever reads better on a class's colour. */
export function inkOn(index) {
  const [r, g, b] = rgb(index).map((value) => (value / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#111" : "#fff";
}

const HEAT = [[0, 28, 12, 92], [0.35, 138, 34, 132], [0.6, 222, 73, 80], [0.8, 250, 146, 40], [1, 252, 240, 150]];

/** Red, green, blue and opacity of heat from 0 to 255: cold places stay as they are. */
export const heat = Array.from({ length: 256 }, (_, value) => {
  const at = value / 255;
  const upper = Math.max(1, HEAT.findIndex(([place]) => place >= at));
  const [[low, ...from], [high, ...to]] = [HEAT[upper - 1], HEAT[upper]];
  const part = (at - low) / (high - low);
  const colour = from.map((start, i) => Math.round(start + part * (to[i] - start)));
  return [...colour, Math.round(255 * Math.min(1, 0.15 + 1.1 * at))];
});
