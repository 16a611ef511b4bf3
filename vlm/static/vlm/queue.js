// The queue in the header: which runs go on, on all data sets.
import { $, fetchPage } from "./dom.js";

const EVERY_MS = 10_000;

async function look() {
  const address = $("#queue")?.dataset.queue;
  if (!address || document.hidden) return;
  const page = await fetchPage(address);
  for (const name of ["queue-says", "queue-list"]) {
    const [old, fresh] = [document.getElementById(name), page?.getElementById(name)];
    if (fresh && !old.isEqualNode(fresh) && !old.contains(document.activeElement)) old.replaceWith(fresh);
  }
}

look();
setInterval(look, EVERY_MS);
document.addEventListener("visibilitychange", look);
// A run has begun or ended on this very page.
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.requestConfig?.verb === "post") look();
});
