// Keys for words: the digits give the words of one dimension, which the user chooses and which stays chosen.
import { $, $$, typing, whenDrawn } from "./dom.js";

const KEPT = "datavisor:word-keys";
let chosen = "";
try { chosen = localStorage.getItem(KEPT) ?? ""; } catch { /* storage may be forbidden; it lasts for this page then */ }

function show() {
  const groups = $$("[data-words-of]");
  const known = groups.some((group) => group.dataset.wordsOf === chosen);
  for (const group of groups) group.hidden = group.dataset.wordsOf !== chosen;
  for (const choice of $$("[data-word-choice]")) choice.value = known ? chosen : "";
  $("#selection")?.classList.toggle("with-words", known);
}

document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-word-choice]")) return;
  chosen = event.target.value;
  try { localStorage.setItem(KEPT, chosen); } catch { /* as above */ }
  show();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || typing(document.activeElement)) return;
  if (!/^[1-9]$/.test(event.key)) return;
  const button = $(`[data-words-of]:not([hidden]) [data-digit="${event.key}"]`);
  if (!button) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  button.click();
}, true);

whenDrawn(show);
