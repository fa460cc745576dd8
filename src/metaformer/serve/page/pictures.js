// Images in the browser: opened upright, scaled down before they are sent, as thumbnails, and collected from what was dropped.

export const LARGEST = 2048; // pixels of the longer side that a classifier is sent
const THUMB = 240;
const QUALITY = 0.92;
const KNOWN = /\.(avif|bmp|gif|hei[cf]|j2k|jfif|jp2|jpe?g|png|tiff?|webp)$/i;

/** An image as it is shown, and the size of the file's; without a bitmap where the browser cannot show it. */
export async function open(file) {
  let whole;
  try {
    whole = await createImageBitmap(file);
  } catch {
    return { bitmap: null, width: null, height: null };
  }
  const { width, height } = whole;
  if (Math.max(width, height) <= LARGEST) return { bitmap: whole, width, height };
  const canvas = scaled(whole, width, height, LARGEST);
  whole.close();
  return { bitmap: canvas, width, height };
}

/** Forgets the pixels. */
export function close(picture) {
  if (picture?.bitmap instanceof ImageBitmap) picture.bitmap.close();
  else if (picture?.bitmap) picture.bitmap.width = 0;
}

function scaled(bitmap, width, height, largest) {
  const part = Math.min(1, largest / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(part * width));
  canvas.height = Math.max(1, Math.round(part * height));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

const encoded = (canvas, type) => new Promise((resolve) => canvas.toBlob(resolve, type, QUALITY));

/** What is sent of a file, with the size where it is not the file's own: large images for a classifier are scaled down. */
export async function prepare(file, picture, task, limits) {
  const { bitmap, width, height } = picture;
  const over = file.size > (limits.image ?? Infinity) || width * height > (limits.pixels ?? Infinity);
  const large = bitmap !== null && Math.max(width, height) > LARGEST;
  if (bitmap === null || !(over || (large && task === "classification"))) return { blob: file, sent: null };
  const canvas = bitmap instanceof ImageBitmap ? scaled(bitmap, width, height, LARGEST) : bitmap;
  const blob = await encoded(canvas, file.type === "image/jpeg" || over ? "image/jpeg" : "image/png");
  return blob === null ? { blob: file, sent: null } : { blob, sent: { width: canvas.width, height: canvas.height } };
}

/** A small JPEG, or null where the browser cannot show the image. */
export function thumbnail(picture) {
  if (picture.bitmap === null) return null;
  const canvas = scaled(picture.bitmap, picture.bitmap.width, picture.bitmap.height, THUMB);
  const pen = canvas.getContext("2d");
  pen.globalCompositeOperation = "destination-over"; // JPEG knows no transparency
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  return encoded(canvas, "image/jpeg");
}

/** Every file of a drop, folders opened. From folders only images, so that no hidden file becomes an error. */
export async function dropped(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? null);
  const files = [...transfer.files];
  if (!entries.some((entry) => entry?.isDirectory)) return files;
  const found = [];
  for (const [i, entry] of entries.entries()) {
    if (entry?.isDirectory) found.push(...(await inside(entry)));
    else if (files[i]) found.push(files[i]);
  }
  return found;
}

async function inside(folder) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (some.length === 0) return found; // a reader gives a hundred at a time
    for (const entry of some.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }))) {
      if (entry.isDirectory) found.push(...(await inside(entry)));
      else {
        const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
        if (file && !file.name.startsWith(".") && (file.type.startsWith("image/") || KNOWN.test(file.name))) found.push(file);
      }
    }
  }
}
