// What links, forms and htmx cannot do alone. Each import is one concern; the page works without any of them.
import "./toasts.js";
import "./selection.js";
import "./panel.js";
import "./words.js";
import "./roving.js";
import "./palette.js";
import "./keys.js";
import "./place.js";
import "./live.js";
import "./queue.js";
import "./viewer.js";
