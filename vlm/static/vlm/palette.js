// The command palette (Ctrl+K): the server finds data sets, views, words and pages; what can be clicked here is found here.
import { $, $$, fetchPage, visible } from "./dom.js";

const dialog = $("#palette");
const field = $("#palette-text");
const MOST = 12;
const lines = () => $$("#palette .found a, #palette .found button").filter(visible);

/** What this page offers, by its name: the controls with data-command, also those in menus that are closed. */
function commands() {
  const parts = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = $$("[data-command]").filter((item) => parts.every((part) => item.dataset.command.toLowerCase().includes(part)));
  const list = parts.length ? found.slice(0, MOST) : [];  // before anything is typed the places matter
  $("#commands").replaceChildren(...list.map((item) => {
    const line = document.createElement("li");
    const button = document.createElement("button");
    const kind = document.createElement("span");
    button.type = "button";
    button.append(item.dataset.command, " ", kind);
    kind.className = "muted small";
    kind.textContent = "action";
    button.addEventListener("click", () => {
      dialog.close();
      if (item.matches("summary")) { item.parentElement.open = true; item.focus(); } else item.click();
    });
    line.append(button);
    return line;
  }));
}

let busy = false;
let again = false;

/** Ask the server what fits; what is typed meanwhile is asked after. */
async function find() {
  commands();
  if (busy) { again = true; return; }
  busy = true;
  do {
    again = false;
    const form = field.form;
    const page = await fetchPage(`${form.action}?${new URLSearchParams(new FormData(form))}`, { "HX-Request": "true" });
    const fresh = page?.getElementById("found");
    if (fresh && !$("#found").contains(document.activeElement)) $("#found").replaceWith(fresh);
  } while (again);
  busy = false;
}

function open() {
  if (!dialog || dialog.open) return;
  dialog.showModal();
  field.select();
  find();
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-palette]") && dialog && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    open();
  } else if (event.target === dialog) dialog.close();  // beside it
});

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") {
    event.preventDefault();
    open();
    return;
  }
  if (!dialog?.open) return;
  event.stopImmediatePropagation();  // no key of the page behind it
  const all = lines();
  const at = all.indexOf(document.activeElement);
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    const next = at + (event.key === "ArrowDown" ? 1 : -1);
    (next < 0 ? field : all[Math.min(next, all.length - 1)])?.focus();
  } else if (event.key === "Enter" && document.activeElement === field) {
    event.preventDefault();
    all[0]?.click();
  }
}, true);

field?.addEventListener("input", find);
