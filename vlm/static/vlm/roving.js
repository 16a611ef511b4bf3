// One tab stop per group ([data-roving]); the arrow keys go on inside it, Home and End to its ends.
import { $$, visible, whenDrawn } from "./dom.js";

const CONTROLS = "a[href], button, input:not([type=hidden]), select, summary";

const items = (group) =>
  $$(CONTROLS, group).filter((item) => item.closest("[data-roving]") === group && !item.closest(".menu-body, .panel > form") && !item.disabled);

function stop(group, chosen) {
  for (const item of items(group)) item.tabIndex = item === chosen ? 0 : -1;
}

function prepare() {
  for (const group of $$("[data-roving]")) {
    const inside = items(group);
    const now = inside.find((item) => item === document.activeElement) ??
      inside.find((item) => item.tabIndex === 0 && item.dataset.stop === "") ??
      inside.find((item) => item.matches("[aria-current]")) ?? inside.find(visible) ?? inside[0];
    for (const item of inside) delete item.dataset.stop;
    if (now) { stop(group, now); now.dataset.stop = ""; }
  }
}

document.addEventListener("focusin", (event) => {
  const group = event.target.closest?.("[data-roving]");
  if (!group || !items(group).includes(event.target)) return;
  for (const item of items(group)) delete item.dataset.stop;
  stop(group, event.target);
  event.target.dataset.stop = "";
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  const group = document.activeElement?.closest?.("[data-roving]");
  if (!group || document.activeElement.matches("input:not([type=checkbox], [type=radio]), select")) return;
  const inside = items(group).filter(visible);
  const at = inside.indexOf(document.activeElement);
  if (at < 0) return;
  const rows = group.dataset.roving === "list";
  const line = (step) => {
    // Up and down go from line to line of a list, at its first control.
    const lines = [...group.children].filter((child) => inside.some((item) => child.contains(item)));
    const now = lines.findIndex((child) => child.contains(document.activeElement));
    return inside.find((item) => lines[now + step]?.contains(item));
  };
  const next = {
    ArrowRight: () => inside[at + 1], ArrowLeft: () => inside[at - 1],
    ArrowDown: () => (rows ? line(1) : undefined), ArrowUp: () => (rows ? line(-1) : undefined),
    Home: () => inside[0], End: () => inside.at(-1),
  }[event.key]?.();
  if (!next) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  next.focus();
}, true);

whenDrawn(prepare);
