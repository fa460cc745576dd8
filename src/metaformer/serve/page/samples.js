// Three images that the page draws itself, for who has none at hand. They are the same every time.

const SIDE = 480;

/** Their names, and what draws them. */
export const SAMPLES = [
  { name: "digit.png", title: "A digit", draw: digit },
  { name: "shapes.png", title: "Shapes", draw: shapes },
  { name: "hills.png", title: "Hills", draw: hills },
];

/** A canvas with the drawing. */
export function drawn(sample, side = SIDE) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d");
  pen.scale(side / SIDE, side / SIDE);
  sample.draw(pen, chance(7));
  return canvas;
}

/** The drawing as a file. */
export async function file(sample) {
  const blob = await new Promise((resolve) => drawn(sample).toBlob(resolve, "image/png"));
  return new File([blob], sample.name, { type: "image/png" });
}

/** Numbers from 0 to 1 that look random: the multiplicative generator of Lewis, Goodman and Miller (1969). */
function chance(seed) {
  let state = seed;
  return () => (state = (state * 16807) % 2147483647) / 2147483647;
}

function digit(pen) {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, SIDE, SIDE);
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = "#fff";
  pen.filter = "blur(5px)";
  pen.lineWidth = 62;
  pen.translate(SIDE / 2, SIDE / 2);
  pen.scale(1.24, 1.24); // to the edges, as the digits of data=digits are
  pen.translate(-SIDE / 2, -SIDE / 2);
  pen.beginPath();
  pen.moveTo(150, 140);
  pen.bezierCurveTo(190, 60, 350, 80, 320, 180);
  pen.bezierCurveTo(305, 225, 260, 235, 225, 236);
  pen.bezierCurveTo(290, 236, 350, 265, 335, 330);
  pen.bezierCurveTo(315, 415, 195, 420, 140, 350);
  pen.stroke();
  pen.filter = "none";
}

function shapes(pen) {
  const ground = pen.createLinearGradient(0, 0, SIDE, SIDE);
  ground.addColorStop(0, "#eee8dc");
  ground.addColorStop(1, "#d9d2c3");
  pen.fillStyle = ground;
  pen.fillRect(0, 0, SIDE, SIDE);
  const put = (colour, trace) => {
    pen.save();
    pen.shadowColor = "rgb(60 40 20 / .35)";
    pen.shadowBlur = 14;
    pen.shadowOffsetY = 8;
    pen.fillStyle = colour;
    pen.beginPath();
    trace();
    pen.fill();
    pen.restore();
  };
  put("#d6453d", () => pen.arc(135, 140, 78, 0, 7));
  put("#2f6fed", () => pen.roundRect(262, 66, 150, 150, 14));
  put("#e9b53a", () => {
    pen.moveTo(128, 268);
    pen.lineTo(226, 422);
    pen.lineTo(40, 422);
    pen.closePath();
  });
  put("#1f9d67", () => pen.ellipse(340, 340, 98, 62, -0.5, 0, 7));
}

function hills(pen, random) {
  const sky = pen.createLinearGradient(0, 0, 0, 330);
  for (const [place, colour] of [[0, "#2b5d9b"], [0.55, "#8fb7d6"], [1, "#f6d9b0"]]) sky.addColorStop(place, colour);
  pen.fillStyle = sky;
  pen.fillRect(0, 0, SIDE, SIDE);
  const sun = pen.createRadialGradient(345, 215, 4, 345, 215, 90);
  for (const [place, colour] of [[0, "#fffbe6"], [0.3, "#ffeec0"], [1, "#ffe2a000"]]) sun.addColorStop(place, colour);
  pen.fillStyle = sun;
  pen.fillRect(200, 100, 280, 240);
  const rows = [["#7d95a8", 250, 34, 1.3], ["#56788a", 290, 40, 2.1], ["#3d6a55", 335, 30, 2.9], ["#2a4f35", 385, 26, 4.2]];
  for (const [colour, high, swing, pace] of rows) {
    const phase = 6 * random();
    pen.fillStyle = colour;
    pen.beginPath();
    pen.moveTo(0, SIDE);
    for (let x = 0; x <= SIDE; x += 4) {
      const t = (pace * x) / 100 + phase;
      pen.lineTo(x, high - swing * (Math.sin(t) + 0.45 * Math.sin(2.3 * t)) + 3 * random());
    }
    pen.lineTo(SIDE, SIDE);
    pen.fill();
  }
  pen.fillStyle = "#1d3a27";
  for (let i = 0; i < 22; i++) {
    const [x, high] = [SIDE * random(), 34 + 46 * random()];
    pen.beginPath();
    pen.moveTo(x, 440 - high);
    pen.lineTo(x + high / 4, 480);
    pen.lineTo(x - high / 4, 480);
    pen.fill();
  }
  const noise = pen.getImageData(0, 0, pen.canvas.width, pen.canvas.height);
  for (let i = 0; i < noise.data.length; i += 4) {
    const grain = 14 * (random() - 0.5);
    for (const j of [i, i + 1, i + 2]) noise.data[j] += grain;
  }
  pen.putImageData(noise, 0, 0);
}
