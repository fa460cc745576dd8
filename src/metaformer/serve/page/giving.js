// How images come in: dropped anywhere, pasted, chosen, or photographed.

import { find } from "./dom.js";
import { dropped } from "./pictures.js";

/** `add(files, made)` is given what comes; `say` tells what cannot. */
export function takeImages(add, say) {
  for (const [button, input] of [["choose", "files"], ["photograph", "camera"], ["another", "files"]]) {
    find(button).addEventListener("click", () => find(input).click());
  }
  for (const input of ["files", "camera"]) {
    find(input).addEventListener("change", (event) => {
      const files = [...event.target.files];
      event.target.value = ""; // so that the same file can be chosen again
      add(files, input === "camera");
    });
  }

  let inside = 0; // elements of the page that the drag has entered and not left
  const dragging = (yes) => {
    inside = yes ? inside : 0;
    document.body.classList.toggle("dragging", yes);
  };
  addEventListener("dragenter", (event) => {
    event.preventDefault();
    inside++;
    dragging(true);
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("dragleave", () => {
    if (--inside <= 0) dragging(false);
  });
  addEventListener("drop", async (event) => {
    event.preventDefault();
    dragging(false);
    const files = await dropped(event.dataTransfer);
    if (files.length === 0) say("There was no image in that. Save it as a file first, then drop the file here.");
    add(files);
  });

  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    const named = files.map((file) => (file.name === "image.png" ? new File([file], "pasted.png", { type: file.type }) : file));
    add(named, true);
  });
}
