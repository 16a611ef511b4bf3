// The auto-tag panel: it begins with what the user has in hand, and a refusal is read where the click was.
import { $, whenDrawn } from "./dom.js";
import { everything, selected } from "./selection.js";

const panel = () => $("#auto-tag");
const choice = (value) => $(`input[name=within][value=${value}]`, panel());

function begin() {
  const some = selected.size > 0;
  const filtered = everything() || Boolean($("#auto-tag-filter")?.value);
  choice("selection").disabled = !some || everything();
  choice("filter").disabled = !$("#auto-tag-filter")?.value;
  const within = everything() ? "filter" : some ? "selection" : filtered ? "filter" : "dataset";
  (choice(within).disabled ? choice("dataset") : choice(within)).checked = true;
  $("#auto-tag-problem").replaceChildren();
}

document.addEventListener("toggle", (event) => {
  if (event.target.id === "auto-tag" && event.target.open) begin();
}, true);

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-auto-tag-selection]") || !panel()?.checkVisibility()) return;
  event.preventDefault();
  panel().open = true;
  panel().scrollIntoView({ block: "nearest" });
  $("button.primary", panel()).focus({ preventScroll: true });
});

document.addEventListener("htmx:configRequest", (event) => {
  const { parameters, elt } = event.detail;
  if (elt.closest("#auto-tag") && parameters.get("within") === "selection") parameters.set("ids", [...selected].join(","));
});

document.addEventListener("change", (event) => {
  // Whoever changes the options is no longer asked about the old ones.
  if (event.target.closest("#auto-tag-form")) $("#auto-tag-problem").replaceChildren();
});

document.addEventListener("htmx:afterRequest", (event) => {
  const { elt, xhr } = event.detail;
  if (elt.id !== "auto-tag-form" || xhr?.status !== 202) return;  // refused, or asked first
  $("#auto-tag-problem").replaceChildren();
  panel().open = false;
});

whenDrawn(() => {
  // A panel that the browser restored open begins like any other.
  if (panel()?.open && !$("input[name=within]:checked", panel())) begin();
});
