// Keys: what the page offers is in its menu “Keys”, and anything with data-key is reached by that key.
import { $, $$, typing, visible } from "./dom.js";
import { selectShown } from "./selection.js";

const menus = "details.menu[open], details.panel[open]";

function moveTo(picture) {
  picture.focus();
  picture.scrollIntoView({ block: "nearest" });
  // Behind the last one others may be waiting: they come when they are seen.
  const behind = picture.closest(".cell").nextElementSibling;
  if (behind?.matches(".more")) behind.scrollIntoView({ block: "nearest" });
}

function move(step) {
  const pictures = $$(".cell .picture");
  if (!pictures.length) return;
  const now = pictures.findIndex((picture) => picture.parentElement.contains(document.activeElement));
  moveTo(pictures[Math.min(pictures.length - 1, Math.max(0, now < 0 ? 0 : now + step))]);
}

function columns() {
  const grid = $("#grid");
  return grid ? getComputedStyle(grid).gridTemplateColumns.split(" ").length : 1;
}

function close(menu) {
  menu.open = false;
  $("summary", menu).focus();
}

// A menu closes when something else is clicked.
document.addEventListener("click", (event) => {
  for (const menu of $$(menus)) {
    if (!menu.contains(event.target) && !event.target.closest("[data-auto-tag-selection]")) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  const grid = $("#grid");
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a" && grid && !typing(document.activeElement) && $(".pick input")) {
    event.preventDefault();
    selectShown();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing(document.activeElement)) {
    if (event.key === "Escape") document.activeElement.blur();
    return;
  }
  const name = event.shiftKey && event.code.startsWith("Digit") ? `shift+${event.code.slice(5)}` : event.key;
  const open = name === "Escape" && $$(menus).at(-1);
  if (open) return close(open);
  if (name === "?" && $("#keys")) {
    $("#keys").open = true;
    $("#keys summary").focus();
    return;
  }
  const target = $$(`[data-key="${CSS.escape(name)}"]`).find((other) => name !== "Escape" || visible(other));
  if (target) {
    event.preventDefault();
    if (!typing(target)) target.click();
    else if (visible(target)) target.focus();  // the bulk bar shows itself once something is selected
    return;
  }
  if (!grid) return;
  const cell = document.activeElement?.closest?.(".cell");
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns(), j: 1, k: -1 };
  if (name in steps && (cell || name === "j" || name === "k")) {
    event.preventDefault();
    move(steps[name]);
  } else if ((name === "x" || name === "X") && cell) {
    event.preventDefault();
    $(".pick input", cell)?.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true, shiftKey: event.shiftKey }));
  }
});
