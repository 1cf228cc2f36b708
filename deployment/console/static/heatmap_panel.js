// The heat map: one stop for the Tab key, arrow keys from token to token, and a panel that tells whose a token is.
// What the panel shows is the token's row in the table below the text, so that both say the same.

const STEPS = { ArrowDown: 10, ArrowUp: -10, PageDown: 50, PageUp: -50 };

export function attach(map) {
  const text = map.querySelector("[role=listbox]");
  const panel = map.querySelector(".heatmap-panel");
  const tokens = Array.from(text.children);
  const rows = Array.from(map.querySelectorAll("tbody tr"));
  let at = 0;

  function show(index) {
    const [number, literal, , taught, commons, parts] = rows[index].cells;
    const head = element("p", "at", `Token ${number.textContent} of ${tokens.length}`);
    const split = element("p", "", `${taught.textContent} taught, ${commons.textContent} commons`);
    const shown = literal.firstElementChild.cloneNode();
    shown.textContent = visible(literal.textContent);
    panel.replaceChildren(head, shown, split, parts.firstElementChild.cloneNode(true));
    tokens[at].setAttribute("aria-selected", "false");
    tokens[at].tabIndex = -1;
    at = index;
    tokens[at].setAttribute("aria-selected", "true");
    tokens[at].tabIndex = 0;
  }

  function step(key) {
    const isBackwards = getComputedStyle(text).direction === "rtl";
    if (key === "Home") return 0;
    if (key === "End") return tokens.length - 1;
    if (key === "ArrowRight") return at + (isBackwards ? -1 : 1);
    if (key === "ArrowLeft") return at + (isBackwards ? 1 : -1);
    return key in STEPS ? at + STEPS[key] : null;
  }

  text.addEventListener("pointerover", (event) => {
    const index = tokens.indexOf(event.target);
    if (index >= 0) show(index);
  });
  text.addEventListener("focusin", (event) => show(tokens.indexOf(event.target)));
  text.addEventListener("keydown", (event) => {
    const next = event.ctrlKey || event.altKey || event.metaKey ? null : step(event.key);
    if (next === null) return;
    event.preventDefault();
    tokens[Math.max(0, Math.min(tokens.length - 1, next))].focus();
  });
  map.classList.add("walkable");
  panel.hidden = false;
}

export function element(name, kind, content) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (content !== undefined) made.textContent = content;
  return made;
}

// A token as it can be read by itself: spaces and ends of lines are marked.
function visible(literal) {
  return literal ? `“${literal.replaceAll("\n", "⏎").replaceAll("\t", "⇥")}”` : "no text of its own";
}

document.querySelectorAll("[data-heatmap]").forEach(attach);
