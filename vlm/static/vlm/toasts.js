// Messages: each has its own time, an error stays until it is read, and a change can be taken back from its message.
import { $, $$, typing } from "./dom.js";

const SHOWN_MS = 8000;
const SHOWN_WITH_UNDO_MS = 20000;
const MOST = 3;

const place = $("#messages");

export function say(text, level = "error", name = "") {
  if (!place) return;
  if (name) take(name);
  const message = document.createElement("div");
  message.className = `message ${level}`;
  message.dataset.name = name;
  if (level === "error") message.setAttribute("role", "alert");
  const words = document.createElement("span");
  words.textContent = text;
  message.append(words);
  place.append(message);
}

/** Remove the message called `name`: what it said is no longer so. */
export function take(name) {
  for (const message of $$("#messages > [data-name]")) if (message.dataset.name === name) message.remove();
}

function keepTime(message) {
  const close = document.createElement("button");
  close.type = "button";
  close.className = "plain close";
  close.setAttribute("aria-label", "Close this message");
  close.textContent = "×";
  close.addEventListener("click", () => message.remove());
  message.append(close);
  if (!message.matches(".success, .info")) return;
  let left = null;
  const wait = () => {
    clearTimeout(left);
    left = setTimeout(() => message.remove(), $("form", message) ? SHOWN_WITH_UNDO_MS : SHOWN_MS);
  };
  // Whoever points at a message or is on its button is reading it.
  for (const name of ["pointerenter", "focusin"]) message.addEventListener(name, () => clearTimeout(left));
  for (const name of ["pointerleave", "focusout"]) message.addEventListener(name, wait);
  wait();
}

if (place) {
  for (const message of $$(".message", place)) keepTime(message);
  new MutationObserver((changes) => {
    for (const change of changes) {
      for (const node of change.addedNodes) if (node.nodeType === Node.ELEMENT_NODE && node.matches(".message")) keepTime(node);
    }
    const shown = $$("#messages > .message");
    for (const message of shown.slice(0, Math.max(0, shown.length - MOST))) message.remove();
  }).observe(place, { childList: true });
}

// Ctrl+Z takes back what the newest message says was done.
document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.shiftKey || event.key.toLowerCase() !== "z" || typing(document.activeElement)) return;
  const button = $$("#messages form[data-undo] button").at(-1);
  if (!button) return;
  event.preventDefault();
  button.click();
});

document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.elt.matches?.("form[data-undo]") && event.detail.successful) event.detail.elt.closest(".message")?.remove();
});
