// Which pictures are selected: what is ticked on show, or, with “all”, everything that the filter finds, and it says so.
import { $, $$, whenDrawn } from "./dom.js";

export const selected = new Set();
let anchor = null;
let filter = null;

const boxes = () => $$(".pick input");
const all = () => $("[data-select-all]");
const wide = (number) => number.toLocaleString("en");

export const everything = () => Boolean(all()?.checked);

function show() {
  const place = $("[data-selected-count]");
  const text = everything() ? `All ${$(".toolbar .total b")?.textContent} selected` : `${wide(selected.size)} selected`;
  if (place && place.textContent !== text) place.textContent = text;
}

function select(box, on) {
  box.checked = on;
  if (on) selected.add(box.value); else selected.delete(box.value);
}

/** What has left the page is selected no longer: nobody could see that it is. */
function reconcile() {
  const now = $("[data-filter]")?.dataset.filter ?? null;
  if (filter !== null && now !== filter) { selected.clear(); anchor = null; }
  filter = now;
  const shown = new Set();
  for (const box of boxes()) {
    shown.add(box.value);
    box.checked = everything() || selected.has(box.value);
  }
  for (const id of [...selected]) if (!shown.has(id)) selected.delete(id);
  show();
}

export function clear() {
  if (all()) all().checked = false;
  selected.clear();
  for (const box of boxes()) box.checked = false;
  show();
}

export function selectShown() {
  if (all()) all().checked = false;
  for (const box of boxes()) select(box, true);
  show();
}

document.addEventListener("click", (event) => {
  const box = event.target.closest(".pick input");
  if (!box) return;
  const list = boxes();
  if (everything()) {
    // All but this one: from here on it is the ticked ones on show.
    all().checked = false;
    for (const other of list) select(other, other !== box);
  }
  const from = list.findIndex((other) => other.value === anchor);
  const to = list.indexOf(box);
  if (event.shiftKey && from >= 0) {
    for (let i = Math.min(from, to); i <= Math.max(from, to); i += 1) select(list[i], box.checked);
    getSelection()?.removeAllRanges();
  } else {
    select(box, box.checked);
  }
  anchor = box.value;
  show();
});

document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-select-all]")) return;
  selected.clear();
  for (const box of boxes()) box.checked = event.target.checked;
  show();
});

document.addEventListener("reset", (event) => {
  if (event.target.id === "selection") setTimeout(clear);
});

document.addEventListener("htmx:configRequest", (event) => {
  const { parameters, elt } = event.detail;
  if (elt.id !== "selection") return;
  parameters.delete("ids");
  if (parameters.has("all")) return;
  // With nothing ticked a key for a word means the picture that the keyboard is on.
  const at = document.activeElement?.closest?.(".cell")?.dataset.id;
  parameters.append("ids", selected.size || !at ? [...selected].join(",") : at);
});

document.addEventListener("htmx:afterRequest", (event) => {
  const { elt, successful, requestConfig } = event.detail;
  if (elt.id !== "selection" || !successful || requestConfig?.verb !== "post") return;
  const tag = $("#bulk-tag");
  if (tag) tag.value = "";
});

for (const box of boxes()) if (box.checked) selected.add(box.value);
whenDrawn(reconcile);
