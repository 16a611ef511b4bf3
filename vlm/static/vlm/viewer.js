// A sample's page: the picture fitted, filling or enlarged, and the next one without a page load.
import { $, $$, drawn, fetchPage, whenDrawn } from "./dom.js";

const MOST_ZOOM = 16;
const MOST_FIT = 4;  // a small picture is enlarged to the stage, up to where it is only blur
const kept = new Map();  // address → page on its way, so that the neighbours are there when they are asked for
const KEPT = 6;

// -- going on ------------------------------------------------------------------------------------------------------------
function page(address) {
  if (!kept.has(address)) {
    kept.set(address, fetchPage(address));
    for (const old of [...kept.keys()].slice(0, Math.max(0, kept.size - KEPT))) kept.delete(old);
  }
  return kept.get(address);
}

async function ahead() {
  for (const rel of ["next", "prev"]) {
    const link = $(`#sample-page a[rel=${rel}]`);
    const found = link && await page(link.href);
    const picture = found && $(".sheet img", found);
    if (picture) new Image().src = picture.getAttribute("src");
  }
}

const steps = [];
let going = false;

async function go() {
  if (going) return;
  going = true;
  while (steps.length) {
    const step = steps.shift();
    const address = ["next", "prev"].includes(step) ? $(`#sample-page a[rel=${step}]`)?.href : step;
    if (!address) { steps.length = 0; break; }
    const found = await page(address);
    kept.delete(address);
    const fresh = found && $("#sample-page", found);
    if (!fresh) { location.assign(address); return; }
    const [boxes, mode] = [$("#boxes")?.checked, fit];
    const focused = document.activeElement?.id;
    const onStrip = Boolean(document.activeElement?.closest(".filmstrip"));
    $("#sample-page").replaceWith(fresh);
    document.title = found.title;
    // One step back in the browser leads to the grid, not through every picture that was passed.
    history.replaceState(history.state, "", address);
    remember();
    if ($("#boxes") && boxes !== undefined) $("#boxes").checked = boxes;
    fit = mode;
    drawn(fresh);
    show();
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    else if (onStrip) $(".filmstrip [aria-current]")?.focus({ preventScroll: true });
  }
  going = false;
  ahead();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("#sample-page a[rel=next], #sample-page a[rel=prev], .filmstrip a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  steps.push(link.rel || link.href);
  go();
});

document.addEventListener("datavisor:changed", () => kept.clear());

function remember() {
  const { grid, id } = $("#sample-page")?.dataset ?? {};
  if (!grid) return;
  try { sessionStorage.setItem(`datavisor:at:${grid}`, id); } catch { /* the address of the grid serves */ }
}

// -- the picture ---------------------------------------------------------------------------------------------------------
let fit = "fit";
let zoom = 1;
let [x, y] = [0, 0];

const stage = () => $("#sample-page .stage");
const sheet = () => $("#sample-page .sheet");

function place() {
  const area = stage();
  if (!area) return;
  const [width, height] = [area.clientWidth, area.clientHeight];
  const [across, down] = [sheet().offsetWidth * zoom, sheet().offsetHeight * zoom];
  // The picture cannot be pushed out of sight.
  const [limitX, limitY] = [Math.max(0, (across - width) / 2), Math.max(0, (down - height) / 2)];
  x = Math.min(limitX, Math.max(-limitX, x));
  y = Math.min(limitY, Math.max(-limitY, y));
  sheet().style.transform = zoom === 1 && !x && !y ? "" : `translate(${x}px, ${y}px) scale(${zoom})`;
  area.classList.toggle("zoomed", limitX > 0 || limitY > 0);
}

function natural() {
  const picture = $("img", sheet());
  return picture?.naturalWidth ? picture.naturalWidth / Math.max(1, picture.clientWidth) : 1;
}

function show() {
  if (!stage()) return;
  const strip = $(".filmstrip");
  const now = strip && $("[aria-current]", strip);
  if (now) strip.scrollLeft = now.offsetLeft - (strip.clientWidth - now.offsetWidth) / 2;
  stage().dataset.shown = fit;
  const picture = $("img", sheet());
  const draw = () => {
    [x, y] = [0, 0];
    const across = stage().clientWidth / Math.max(1, sheet().offsetWidth);
    const down = stage().clientHeight / Math.max(1, sheet().offsetHeight);
    zoom = fit === "real" ? natural() : fit === "fill" ? Math.max(across, down) : Math.min(MOST_FIT, Math.max(1, Math.min(across, down)));
    place();
  };
  if (picture.complete) draw(); else picture.addEventListener("load", draw, { once: true });
  for (const button of $$("[data-fit]")) button.setAttribute("aria-pressed", String(button.dataset.fit === fit));
}

function zoomTo(wanted, atX, atY) {
  const next = Math.min(MOST_ZOOM, Math.max(1, wanted));
  const box = stage().getBoundingClientRect();
  const [fromX, fromY] = [atX - box.left - box.width / 2, atY - box.top - box.height / 2];
  x = fromX - ((fromX - x) * next) / zoom;
  y = fromY - ((fromY - y) * next) / zoom;
  zoom = next;
  place();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-fit]");
  if (!button) return;
  fit = fit === button.dataset.fit ? "fit" : button.dataset.fit;
  show();
});

document.addEventListener("wheel", (event) => {
  if (!event.target.closest?.("#sample-page .stage")) return;
  event.preventDefault();
  zoomTo(zoom * Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
}, { passive: false });

const fingers = new Map();
let spread = 0;

document.addEventListener("pointerdown", (event) => {
  const area = event.target.closest?.("#sample-page .stage");
  if (!area || event.button) return;
  if (event.pointerType === "mouse") event.preventDefault();  // no ghost of the picture is dragged
  fingers.set(event.pointerId, [event.clientX, event.clientY]);
  area.setPointerCapture(event.pointerId);
  spread = 0;
});

document.addEventListener("pointermove", (event) => {
  const was = fingers.get(event.pointerId);
  if (!was) return;
  fingers.set(event.pointerId, [event.clientX, event.clientY]);
  const points = [...fingers.values()];
  if (points.length === 2) {
    const now = Math.hypot(points[0][0] - points[1][0], points[0][1] - points[1][1]);
    if (spread) zoomTo((zoom * now) / spread, (points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2);
    spread = now;
    return;
  }
  x += event.clientX - was[0];
  y += event.clientY - was[1];
  place();
});

for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, (event) => fingers.delete(event.pointerId));
document.addEventListener("keydown", (event) => {
  if (!event.target.closest?.("#sample-page .stage") || !["+", "-", "0"].includes(event.key)) return;
  const box = stage().getBoundingClientRect();
  const wanted = { "+": zoom * 1.5, "-": zoom / 1.5, 0: 1 }[event.key];
  zoomTo(wanted, box.left + box.width / 2, box.top + box.height / 2);
});
window.addEventListener("resize", () => { if (stage()) show(); });

if ($("#sample-page")) {
  remember();
  show();
  ahead();
}
whenDrawn(() => { if (stage() && !stage().dataset.shown) show(); });
