// Review: a key for every word. The buttons work without this; htmx brings the next picture, which the page has loaded already.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("input:not([type=hidden]), textarea, select")) return;
  const button = document.querySelector(`#review [data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!button) return;
  event.preventDefault();
  button.click();
});

// Whether the model's answer is shown is the reviewer's own choice, and stays from picture to picture.
const SHOWN = "review-said";
document.addEventListener("toggle", (event) => {
  if (event.target.matches("#review .said")) localStorage.setItem(SHOWN, event.target.open ? "1" : "");
}, true);
const restore = () => {
  const said = document.querySelector("#review .said");
  if (said) said.open = localStorage.getItem(SHOWN) === "1";
};
document.addEventListener("htmx:afterSwap", restore);
restore();
