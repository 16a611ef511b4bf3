// Drawing again what data changes change. What is on show stays where it is: counts are written over, cells are put in
// between and taken out, and nothing that the user has opened, written or focused is lost.
import { $, $$, drawn, fetchPage, scroller } from "./dom.js";

const LEAST_MS = 3000;  // between two looks that follow a run
const REST = 5;         // and this many times as long as the last one took
const MOST_DOUBLED = 4;  // times that the wait for a server that cannot answer is doubled

const cells = () => $$("#grid > .cell");

/** Write `fresh` over `old` unless they are alike; a focused part is left for the next time. */
function replace(old, fresh) {
  if (!old || !fresh || old.isEqualNode(fresh)) return;
  if (old.contains(document.activeElement)) return;
  old.replaceWith(fresh);
  drawn(fresh);
}

function patchFacet(old, fresh) {
  const names = (list) => $$(":scope > li", list).map((line) => line.dataset.name).join("\n");
  if (names(old) !== names(fresh)) return replace(old, fresh);
  const lines = $$(":scope > li", fresh);
  for (const [index, line] of $$(":scope > li", old).entries()) {
    const [count, now] = [$(".count", line), $(".count", lines[index])];
    if (count && now && count.textContent !== now.textContent) count.textContent = now.textContent;
    const [bar, length] = [$(".share rect", line), $(".share rect", lines[index])];
    if (bar && length) bar.setAttribute("width", length.getAttribute("width"));
  }
}

function patchSidebar(fresh) {
  const aside = $("#filters");
  if (!aside || !fresh) return;
  const groups = $$(":scope > details", fresh);
  const names = new Set(groups.map((group) => group.id));
  for (const group of groups) {
    const old = document.getElementById(group.id);
    if (!old) {
      // A facet that was not there, such as the first own tag: it goes behind its neighbour.
      const before = document.getElementById(groups[groups.indexOf(group) - 1]?.id ?? "");
      if (before) before.after(group); else aside.append(group);
      drawn(group);
      continue;
    }
    const [list, now] = [$("ul.facet", old), $("ul.facet", group)];
    if (list && now) patchFacet(list, now);
  }
  for (const old of $$(":scope > details", aside)) if (!names.has(old.id)) old.remove();
}

function patchTags(old, fresh) {
  if (old.matches("tr")) {
    // A row of the table: each of its columns but the first, which is the picture.
    for (const [index, place] of [...old.cells].entries()) {
      const now = fresh.cells[index];
      if (index && now && place.innerHTML !== now.innerHTML) place.replaceChildren(...now.childNodes);
    }
  }
  const [place, now] = [$(".tags", old), $(".tags", fresh)];
  if (place && now && place.innerHTML !== now.innerHTML) place.replaceChildren(...now.childNodes);
  const [picture, address] = [$("img", old), $("img", fresh)];
  if (picture && address && picture.getAttribute("src") !== address.getAttribute("src")) picture.src = address.getAttribute("src");
}

/** Bring the grid up to date. `gently` puts in what matches now, but takes nothing away under the user's eyes. */
function patchGrid(fresh, gently) {
  const grid = $("#grid");
  const known = new Map(cells().map((cell) => [cell.dataset.id, cell]));
  const now = $$(":scope > .cell", fresh);
  const here = new Set(now.map((cell) => cell.dataset.id));
  const rest = $(":scope > .more:not(.earlier)", fresh);
  // The server draws so many at most; what lies below them is as it was.
  const cut = Boolean(rest) && known.size > now.length;
  const added = [];
  let last = $(":scope > .earlier", grid);
  for (const cell of now) {
    let place = known.get(cell.dataset.id);
    if (place) patchTags(place, cell);
    else { place = cell; added.push(cell); }
    if (place.previousElementSibling !== last || place.parentElement !== grid) {
      if (gently && known.has(cell.dataset.id)) { last = place; continue; }
      if (last) last.after(place); else grid.prepend(place);
    }
    last = place;
  }
  if (!gently) {
    const order = [...known.values()];
    const lastKept = order.findLastIndex((cell) => here.has(cell.dataset.id));
    const stays = (cell, index) => here.has(cell.dataset.id) || (cut && index > lastKept);
    const at = order.findIndex((cell) => cell.contains(document.activeElement));
    if (at >= 0 && !stays(order[at], at)) {
      // The picture that the keyboard is on no longer matches: it goes on to the next one.
      const next = order.find((cell, index) => index > at && stays(cell, index)) ?? order.findLast((cell, index) => index < at && stays(cell, index));
      if (next) $(".picture", next).focus({ preventScroll: true });
    }
    for (const [index, cell] of order.entries()) if (!stays(cell, index)) cell.remove();
  }
  const more = $(":scope > .more:not(.earlier)", grid);
  if (!cut && !gently) {
    more?.remove();
    if (rest) { grid.append(rest); added.push(rest); }
  }
  drawn(...added);
}

/** Hold on to a cell that is on screen while `change` works: those never seen have a guessed height at first. */
async function keepingPlace(change) {
  const seen = scrollY > 0 || $("[data-scroller]")?.scrollTop > 0 ? cells().find((cell) => cell.getBoundingClientRect().bottom > 0) : null;
  const top = seen?.getBoundingClientRect().top;
  change();
  for (let frame = 0; seen?.isConnected && frame < 5; frame += 1) {
    scroller(seen).scrollBy({ top: seen.getBoundingClientRect().top - top, behavior: "instant" });
    await new Promise(requestAnimationFrame);
  }
}

function patchBrowse(fresh, gently, counted) {
  patchSidebar($("#filters", fresh));
  replace($("#stats"), $("#stats", fresh));
  if (!counted && Boolean($("#grid")) !== Boolean($("#grid", fresh)) && !(gently && $("#grid"))) {
    // From nothing that matches to something, or back: there is no place to keep.
    const now = $(".results", fresh);
    $(".results").replaceWith(now);
    drawn(now);
    return;
  }
  replace($(".toolbar .total"), $(".toolbar .total", fresh));
  replace($("#known-tags"), $("#known-tags", fresh));
  const all = $("[data-all-count]");
  if (all) all.textContent = $("[data-all-count]", fresh)?.textContent ?? all.textContent;
  if (counted) return;
  if ($("#grid") && $("#grid", fresh)) patchGrid($("#grid", fresh), gently);
}

function patchRegion(region, fresh) {
  if (region.isEqualNode(fresh)) return;
  const open = new Map($$("details[id]", region).map((details) => [details.id, details.open]));
  const fields = new Map($$("input[id]:not([type=hidden]), select[id]", region).map((field) => [field.id, field.value]));
  const focus = region.contains(document.activeElement) ? document.activeElement.id : "";
  region.replaceChildren(...fresh.childNodes);
  for (const [id, was] of open) { const details = document.getElementById(id); if (details) details.open = was; }
  for (const [id, value] of fields) { const field = document.getElementById(id); if (field && !("fresh" in field.dataset)) field.value = value; }
  if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
  drawn(region);
}

/** Return the address that draws what is on show, and nothing else. */
function address(counted) {
  const here = new URL(location.href);
  for (const key of ["at", "from", "after", "loaded"]) here.searchParams.delete(key);
  if (counted) {
    here.searchParams.set("loaded", "0");
  } else if ($("#grid")) {
    const shown = cells();
    here.searchParams.set("loaded", String(Math.max(1, shown.length)));
    if ($("#grid > .earlier") && shown.length) here.searchParams.set("from", shown[0].dataset.id);
  }
  return here.pathname + here.search;
}

let busy = false;
let wanted = null;
let lastTook = 0;
let lastAt = 0;
let timer = null;
let followsWhole = false;
let missed = 0;

/**
 * Look again, and once more later where the server cannot answer now. `gently` takes nothing away under the user's eyes;
 * `whole` looks at the cells too where a run would change their tags alone, which come by themselves.
 */
export async function refresh({ gently = false, whole = false } = {}) {
  const region = $("[data-region]");
  if (!region) return;
  if (busy) { wanted = both({ gently, whole }, wanted); return; }
  busy = true;
  clearTimeout(timer);
  timer = null;
  followsWhole = false;
  const began = performance.now();
  try {
    const browse = region.id === "browse";
    // While a run goes on, the cells on show get their tags by themselves; others can only come in through a filter.
    const counted = browse && gently && !whole && region.dataset.follow === "counts";
    const page = await fetchPage(browse ? address(counted) : location.href, browse ? { "HX-Request": "true" } : {});
    missed = page === undefined ? missed + 1 : 0;
    const fresh = page && document.getElementById(region.id) === region && page.getElementById(region.id);
    if (fresh) {
      if (browse) await keepingPlace(() => patchBrowse(page.body, gently, counted));
      else if (!gently || !region.contains(document.activeElement)) patchRegion(region, fresh);
    }
  } finally {
    lastAt = performance.now();
    lastTook = lastAt - began;
    busy = false;
    const next = missed ? both({ gently, whole }, wanted) : wanted;
    wanted = null;
    if (missed) later(next, LEAST_MS * 2 ** Math.min(missed - 1, MOST_DOUBLED));
    else if (next?.gently) follow(next);
    else if (next) refresh(next);
  }
}

/** Return one look that does for both; there may be no other. */
function both(one, other) {
  return other ? { gently: one.gently && other.gently, whole: one.whole || other.whole } : one;
}

function later({ gently, whole }, wait) {
  followsWhole ||= whole;
  clearTimeout(timer);
  timer = setTimeout(() => { timer = null; refresh({ gently, whole: followsWhole }); }, wait);
}

/** Look again soon, but not oftener than the server bears. */
export function follow({ whole = false } = {}) {
  followsWhole ||= whole;
  if (timer) return;
  const wait = Math.max(LEAST_MS, REST * lastTook) - (performance.now() - lastAt);
  later({ gently: true, whole }, Math.max(0, lastAt ? wait : 0));
}

document.addEventListener("datavisor:changed", () => refresh());
