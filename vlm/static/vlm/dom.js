// Small things that every module needs.
export const root = document.documentElement;
export const $ = (selector, from = document) => from.querySelector(selector);
export const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];

export const typing = (element) =>
  Boolean(element?.matches?.("input:not([type=checkbox], [type=radio], [type=range]), select, textarea"));

/** What scrolls so that one sees `element`: the table's own frame, or the window. */
export const scroller = (element) => element.closest("[data-scroller]") ?? window;

export const visible = (element) => element.checkVisibility?.() ?? true;

/** Have `changed` called now and whenever htmx or a redraw may have brought new parts of the page. */
export function whenDrawn(changed) {
  changed();
  document.addEventListener("htmx:afterSettle", changed);
  document.addEventListener("datavisor:drawn", changed);
}

/** Tell every module that a part of the page was drawn anew without htmx. */
export function drawn(...parts) {
  for (const part of parts) htmx.process(part);
  document.dispatchEvent(new Event("datavisor:drawn"));
}

/** Fetch one of our pages as a document; `null` when we may not see it (any more), `undefined` when the server cannot answer now. */
export async function fetchPage(address, headers = {}) {
  const answer = await fetch(address, { headers, credentials: "same-origin" }).catch(() => undefined);
  if (!answer || answer.status >= 500) return undefined;
  if (!answer.ok || answer.headers.get("HX-Refresh") || new URL(answer.url).pathname.startsWith("/accounts/")) return null;
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}
