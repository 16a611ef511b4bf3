// Coming back: the address of the grid remembers the picture that one left it for.
import { $, $$, scroller, whenDrawn } from "./dom.js";

const key = () => `datavisor:at:${location.pathname}`;

function remember(id) {
  const here = new URL(location.href);
  for (const name of ["after", "from", "loaded"]) here.searchParams.delete(name);
  here.searchParams.set("at", id);
  history.replaceState(history.state, "", here);
}

document.addEventListener("click", (event) => {
  const picture = event.target.closest(".cell .picture");
  if (picture && !event.ctrlKey && !event.metaKey && !event.shiftKey) remember(picture.closest(".cell").dataset.id);
}, true);

/** Show the picture that the address names, in the middle, and put the keyboard on it. */
async function land(id) {
  const cell = $(`.cell[data-id="${CSS.escape(id)}"]`);
  if (!cell) return;
  $(".picture", cell)?.focus({ preventScroll: true });
  // Cells that were never on screen have a guessed height, so look again while they find their own.
  for (let frame = 0; frame < 6; frame += 1) {
    cell.scrollIntoView({ block: "center", behavior: "instant" });
    await new Promise(requestAnimationFrame);
  }
  cell.classList.add("landed");
}

function arrive() {
  if (!$("#grid")) return;
  let seen = null;
  try { seen = sessionStorage.getItem(key()); sessionStorage.removeItem(key()); } catch { /* the address serves */ }
  const here = new URL(location.href);
  const at = here.searchParams.get("at");
  if (seen && at && seen !== at && performance.getEntriesByType("navigation")[0]?.type === "back_forward") {
    // On the sample's page one went on to another picture: that is the one to come back to.
    here.searchParams.set("at", seen);
    if ($(`.cell[data-id="${CSS.escape(seen)}"]`)) history.replaceState(history.state, "", here);
    else { location.replace(here); return; }
  }
  const id = seen && at ? seen : at;
  if (id) {
    history.scrollRestoration = "manual";
    land(id);
  }
}

arrive();

// Scrolling up from such a place brings the images before it; what is on show stays where it is.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { target } = event.detail;
  if (!target?.classList.contains("earlier")) return;
  const first = $("#grid > .cell");
  const top = first?.getBoundingClientRect().top;
  const settle = async () => {
    document.removeEventListener("htmx:afterSettle", settle);
    for (let frame = 0; first?.isConnected && frame < 5; frame += 1) {
      scroller(first).scrollBy({ top: first.getBoundingClientRect().top - top, behavior: "instant" });
      await new Promise(requestAnimationFrame);
    }
  };
  document.addEventListener("htmx:afterSettle", settle);
});

whenDrawn(() => {
  // htmx asks for a page once: a second link to the same one would bring its cells twice.
  const seen = new Set();
  for (const cell of $$("#grid > .cell")) {
    if (seen.has(cell.dataset.id)) cell.remove();
    seen.add(cell.dataset.id);
  }
});
