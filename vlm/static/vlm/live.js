// What a run does while one looks: the strip, the tags of the cells on show, the counts, and the line to the server.
import { $, $$, root } from "./dom.js";
import { follow, refresh } from "./refresh.js";
import { say, take } from "./toasts.js";

const RETRY_MS = 800;  // a lost connection heals within three seconds of the server's return
const title = document.title;
let before = null;
let changes = null;
let opened = 0;
let unfolded = [];

const runNow = () => {
  const live = $("#live");
  return { run: live?.dataset.run ?? "", active: live?.hasAttribute("data-active") ?? false };
};

// What is unfolded in the strip stays so, whoever draws it anew.
function noteUnfolded() { unfolded = $$("#live details[id][open]").map((details) => details.id); }
function unfold() {
  for (const id of unfolded) { const details = document.getElementById(id); if (details) details.open = true; }
}

function placeTags() {
  for (const fresh of $$("#live-cells > [data-tags]")) {
    const place = $(`[data-tags-of="${CSS.escape(fresh.dataset.tags)}"]`);
    if (place && place.innerHTML !== fresh.innerHTML) {
      place.replaceChildren(...fresh.childNodes);
      place.classList.remove("fresh");
      void place.offsetWidth;
      place.classList.add("fresh");
    }
    fresh.remove();
  }
}

/** Somebody has changed tags or what else is on show: in another tab, or a command in another process. */
function noticeChange() {
  const now = $("#live-cells")?.dataset.changes || null;
  if (now !== null && changes !== null && now !== changes) follow({ whole: true });
  changes = now ?? changes;
}

function showTitle() {
  const bar = $("#live-bar");
  const percent = bar && runNow().active && bar.max > 0 && bar.hasAttribute("value") ? Math.floor((100 * bar.value) / bar.max) : null;
  const text = percent === null ? title : `${percent} % – ${title}`;
  if (document.title !== text) document.title = text;
}

function noticeRun() {
  const now = runNow();
  if (before && ((before.active && !now.active) || (before.run !== now.run && !now.active))) {
    refresh();
    announce();
  } else if (now.active) follow();
  before = now;
  showTitle();
}

/** Tell whoever wished it, and looks elsewhere, that the run has ended. */
function announce() {
  if (!document.hidden || !("Notification" in window) || Notification.permission !== "granted") return;
  new Notification($("h1")?.textContent ?? "DataVisor", { body: $("#live-says")?.textContent ?? "The run has ended." });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-notify]");
  if (!button || !("Notification" in window)) return;
  const answer = await Notification.requestPermission();
  say(answer === "granted" ? "You will be told when the run ends, while this page stays open." : "The browser does not allow notifications here.",
    answer === "granted" ? "success" : "error", "notify");
});

// -- the strip, drawn anew as a whole ------------------------------------------------------------------------------------
const NUMBERS = "b[id], #live-bar, #live-crew";

/** Return what a strip says and lets one do, but for its numbers. */
function gist(strip) {
  const copy = strip.cloneNode(true);
  for (const part of $$(NUMBERS, copy)) part.replaceChildren();
  const parts = $$("[id]", copy).map((part) => [part.id, part.disabled]);
  return JSON.stringify([strip.dataset.run, parts, copy.textContent.replace(/\s+/g, " ")]);
}

// Whoever connects is greeted with the whole strip. Where its numbers alone are new its buttons stay: a click may be under way.
document.addEventListener("htmx:oobBeforeSwap", (event) => {
  const { target, fragment } = event.detail;
  const fresh = target.id === "live" ? $("#live", fragment) : null;
  if (!fresh || gist(target) !== gist(fresh)) return;
  event.detail.shouldSwap = false;
  for (const part of $$(NUMBERS, fresh)) document.getElementById(part.id).replaceWith(part);
});

// -- the line to the server ---------------------------------------------------------------------------------------------
function lost() { root.dataset.offline = ""; }
function found() { delete root.dataset.offline; take("lost"); }

document.addEventListener("htmx:wsOpen", () => {
  found();
  opened += 1;
  // Between drawing the page and listening, and while the line was down, tags may have come.
  if (opened > 1) { refresh({ gently: true, whole: true }); return; }
  const shown = $$(".pick input, .cell").map((item) => item.value ?? item.dataset.id).filter(Boolean).slice(-200);
  const { cells } = $("[data-cells]")?.dataset ?? {};
  if (cells && shown.length && runNow().active) {
    htmx.ajax("GET", `${cells}?ids=${[...new Set(shown)].join(",")}`, { swap: "none", target: "#live-cells" }).then(placeTags);
  }
});

document.addEventListener("htmx:wsClose", (event) => {
  const { code } = event.detail.event;
  if (code === 4401 || code === 4403 || code === 4404) {
    say(code === 4401 ? "You are logged out. Reload the page to log in again." : "You may no longer see this data set.", "error", "closed");
    return;
  }
  lost();
  // htmx itself comes back after a lost connection, but not after a polite good-bye.
  if (code === 1000 || code === 1001 || code === 1005) {
    const { socketWrapper } = event.detail;
    setTimeout(() => { if ($("[ws-connect]")) socketWrapper.reconnect(); }, RETRY_MS * (0.5 + Math.random()));
  }
});

document.addEventListener("htmx:wsBeforeMessage", noteUnfolded);
document.addEventListener("htmx:wsAfterMessage", () => {
  unfold();
  placeTags();
  noticeChange();
  noticeRun();
});

// -- requests ------------------------------------------------------------------------------------------------------------
const unasked = (elt) => Boolean(elt?.closest?.("[data-poll]"));

document.addEventListener("htmx:sendError", (event) => {
  if (unasked(event.detail.elt) || event.detail.requestConfig?.verb === "get") {
    lost();
    say("The server does not answer. Trying again…", "error", "lost");
    return;
  }
  say("The server does not answer. Your last click was not carried out; try it again in a moment.", "error", "click");
});

document.addEventListener("htmx:afterRequest", (event) => {
  if (!event.detail.xhr?.status) return;
  found();
  if (!unasked(event.detail.elt)) take("click");
});

document.addEventListener("htmx:beforeSwap", noteUnfolded);
document.addEventListener("htmx:afterSwap", () => {
  unfold();
  noticeRun();
});

function begin() {
  htmx.config.wsReconnectDelay = () => RETRY_MS * (0.5 + Math.random());
  before = $("#live") ? runNow() : null;
  changes = $("#live-cells")?.dataset.changes || null;
  showTitle();
}
if (window.htmx) begin(); else document.addEventListener("DOMContentLoaded", begin);
