// What links, forms and htmx cannot do alone: the theme, selecting ranges, keys, and keeping the place when data change.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");

  // -- theme: set before the page is drawn, so that it never flashes --
  let theme = null;
  try { theme = localStorage.getItem("theme"); } catch { /* storage may be forbidden; the system's theme serves */ }
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;

  function toggleTheme() {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* it lasts for this page then */ }
  }

  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];

  // -- selection: kept here, so that it outlives a redrawn grid --
  const selected = new Set();
  let anchor = null;
  const boxes = () => $$(".pick input");

  function showSelection() {
    const all = $("[data-select-all]")?.checked;
    const place = $("[data-selected-count]");
    const total = $(".toolbar .total b")?.textContent;
    if (place) place.textContent = all ? `All ${total} selected` : `${selected.size.toLocaleString("en")} selected`;
  }

  function select(box, on) {
    box.checked = on;
    if (on) selected.add(box.value); else selected.delete(box.value);
  }

  function restoreSelection() {
    for (const box of boxes()) box.checked = selected.has(box.value);
    showSelection();
  }

  function clearSelection() {
    selected.clear();
    const all = $("[data-select-all]");
    if (all) all.checked = false;
    restoreSelection();
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-theme-toggle]")) return toggleTheme();
    const plain = event.target.closest("[data-auto-tag-selection]");
    const panel = $("#auto-tag");
    if (plain && panel) {
      event.preventDefault();
      const within = $("[data-select-all]")?.checked ? "filter" : "selection";
      $(`input[name=within][value=${within}]`, panel).checked = true;
      panel.open = true;
      panel.scrollIntoView({ block: "nearest" });
      $("button.primary", panel).focus();
      return;
    }
    // A menu closes when something else is clicked.
    for (const menu of $$("details.menu[open], details.panel[open]")) if (!menu.contains(event.target)) menu.open = false;
    const box = event.target.closest(".pick input");
    if (!box) return;
    const list = boxes();
    const from = list.findIndex((other) => other.value === anchor);
    const to = list.indexOf(box);
    if (event.shiftKey && from >= 0) {
      for (let i = Math.min(from, to); i <= Math.max(from, to); i += 1) select(list[i], box.checked);
      getSelection()?.removeAllRanges();
    } else {
      select(box, box.checked);
    }
    anchor = box.value;
    showSelection();
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-select-all]")) showSelection();
  });
  document.addEventListener("reset", (event) => {
    if (event.target.id === "selection") setTimeout(clearSelection);
  });

  // -- keys --
  const typing = (element) => element?.matches?.("input:not([type=checkbox], [type=radio]), select, textarea");

  function moveFocus(step) {
    const pictures = $$(".cell .picture");
    if (!pictures.length) return;
    const now = pictures.findIndex((picture) => picture.parentElement.contains(document.activeElement));
    const next = pictures[Math.min(pictures.length - 1, Math.max(0, now < 0 ? 0 : now + step))];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  }

  function columns() {
    const grid = $("#grid");
    return grid ? getComputedStyle(grid).gridTemplateColumns.split(" ").length : 1;
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing(document.activeElement)) {
      if (event.key === "Escape") document.activeElement.blur();
      return;
    }
    const name = event.shiftKey && event.code.startsWith("Digit") ? `shift+${event.code.slice(5)}` : event.key;
    const open = name === "Escape" && $("details.menu[open], details.panel[open]");
    if (open) {
      open.open = false;
      $("summary", open).focus();
      return;
    }
    const target = $(`[data-key="${CSS.escape(name)}"]`);
    if (target && !(name === "Escape" && !target.checkVisibility?.())) {
      event.preventDefault();
      if (typing(target)) {
        // The bulk bar shows itself once something is selected.
        if (target.checkVisibility?.() ?? true) target.focus();
      } else target.click();
      return;
    }
    if (!$("#grid")) return;
    const cell = document.activeElement?.closest?.(".cell");
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns(), j: 1, k: -1 };
    if (name in steps && (cell || name === "j" || name === "k")) {
      event.preventDefault();
      moveFocus(steps[name]);
    } else if ((name === "x" || name === "X") && cell) {
      event.preventDefault();
      $(".pick input", cell).dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true, shiftKey: event.shiftKey }));
    }
  });

  // -- redrawing what data changes change, with the user left where they are --
  let refreshing = false;
  let again = false;

  async function refresh() {
    const region = $("[data-region]");
    if (!region) return;
    if (refreshing) { again = true; return; }
    refreshing = true;
    const address = new URL(location.href);
    const shown = $$(".cell").length;
    if (shown) address.searchParams.set("loaded", String(shown));
    const [x, y] = [scrollX, scrollY];
    const seen = y > 0 ? $$(".cell").find((cell) => cell.getBoundingClientRect().bottom > 0) : null;
    const top = seen?.getBoundingClientRect().top;
    const closed = $$("details[id]", region).map((details) => [details.id, details.open]);
    const fields = $$("input[id]:not([type=hidden], [type=checkbox]), select[id]", region).map((field) => [field.id, field.value]);
    const side = $(".sidebar")?.scrollTop ?? 0;
    try {
      await htmx.ajax("GET", address.pathname + address.search, { target: "[data-region]", select: "[data-region]", swap: "outerHTML" });
      for (const [id, open] of closed) { const details = document.getElementById(id); if (details) details.open = open; }
      for (const [id, value] of fields) { const field = document.getElementById(id); if (field && field.id !== "new-tag") field.value = value; }
      const sidebar = $(".sidebar");
      if (sidebar) sidebar.scrollTop = side;
      restoreSelection();
      scrollTo(x, y);
      // Cells that were never on screen have a guessed height, so hold on to one that is, while they find their own.
      for (let frame = 0; seen && frame < 5; frame += 1) {
        const cell = $(`.cell[data-id="${CSS.escape(seen.dataset.id)}"]`);
        if (!cell) break;
        scrollBy({ top: cell.getBoundingClientRect().top - top, behavior: "instant" });
        await new Promise(requestAnimationFrame);
      }
    } finally {
      refreshing = false;
      if (again) { again = false; refresh(); }
    }
  }
  document.addEventListener("datavisor:changed", refresh);

  // -- live results --
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

  const runNow = () => {
    const live = $("#live");
    return { run: live?.dataset.run ?? "", active: live?.hasAttribute("data-active") ?? false };
  };
  let before = null;
  let opened = 0;

  document.addEventListener("htmx:wsOpen", () => {
    delete root.dataset.offline;
    opened += 1;
    // Between drawing the page and listening, and while the line was down, tags may have come.
    const visible = boxes().map((box) => box.value).slice(-200);
    const { cells } = $("[data-cells]")?.dataset ?? {};
    if (cells && visible.length && (opened > 1 || runNow().active)) {
      htmx.ajax("GET", `${cells}?ids=${visible.join(",")}`, { swap: "none", target: "#live-cells" }).then(placeTags);
    }
  });

  document.addEventListener("htmx:wsClose", (event) => {
    const { code } = event.detail.event;
    if (code === 4401 || code === 4403 || code === 4404) {
      const text = code === 4401 ? "You are logged out. Reload the page to log in again." : "You may no longer see this data set.";
      say(text);
      return;
    }
    root.dataset.offline = "";
    // htmx itself comes back after a lost connection, but not after a polite good-bye.
    if (code === 1000 || code === 1001 || code === 1005) {
      const { socketWrapper } = event.detail;
      setTimeout(() => { if ($("[ws-connect]")) socketWrapper.reconnect(); }, 500 + 1000 * Math.random());
    }
  });

  document.addEventListener("htmx:wsAfterMessage", () => {
    placeTags();
    noticeRun();
  });

  function noticeRun() {
    const now = runNow();
    if (before && ((before.active && !now.active) || (before.run !== now.run && !now.active))) refresh();
    before = now;
  }

  function say(text) {
    const message = document.createElement("p");
    message.className = "message error";
    message.textContent = text;
    $("#messages")?.replaceChildren(message);
  }

  // -- htmx --
  document.addEventListener("htmx:configRequest", (event) => {
    const { parameters, elt } = event.detail;
    if (elt.id === "selection") {
      parameters.delete("ids");
      if (!parameters.has("all")) parameters.append("ids", [...selected].join(","));
    }
    if (elt.closest("#auto-tag") && parameters.get("within") === "selection") parameters.set("ids", [...selected].join(","));
  });

  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.elt.id === "auto-tag-form" && event.detail.successful) {
      $("#auto-tag").open = false;
      $("#auto-tag-problem").replaceChildren();
    }
  });

  document.addEventListener("htmx:afterSwap", (event) => {
    noticeRun();
    if (refreshing) return;
    if (event.detail.target.id === "browse") selected.clear();  // another filter: nothing unseen stays selected
    restoreSelection();
  });
  document.addEventListener("htmx:sendError", () => say("The server does not answer. Your last click was not carried out; try it again in a moment."));

  document.addEventListener("DOMContentLoaded", () => {
    before = $("#live") ? runNow() : null;
    for (const box of boxes()) if (box.checked) selected.add(box.value);
    showSelection();
    setTimeout(() => { for (const message of $$("#messages .success")) message.remove(); }, 8000);
  });
})();
