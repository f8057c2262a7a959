// The token view of the preview: the body of a function that Gradio calls once, with `element`, the component's root.
// Says of the token under the pointer, or of the one that the arrow keys have come to, its number and what becomes of it.

const about = () => element.querySelector(".td-token-about");
let marked = null;

function tell(token) {
  const told = about();
  if (!told || !token?.title) return;
  const state = "out" in token.dataset ? "cut" : "on" in token.dataset ? "trained" : "masked";
  const words = tunedesk.words;
  told.textContent = `${words.token} ${token.title} · ${token.textContent} · ${words[`token_${state}`]}`;
}

function mark(token) {
  marked?.removeAttribute("data-at");
  marked = token;
  token.setAttribute("data-at", "");
  const box = token.parentElement.getBoundingClientRect();
  const at = token.getBoundingClientRect();
  if (at.top < box.top || at.bottom > box.bottom) token.scrollIntoView({ block: "nearest" });
  tell(token);
}

element.addEventListener("mouseover", (event) => {
  const token = event.target.closest?.(".td-tokens > [title]");
  if (token) tell(token);
});

const STEPS = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity };

element.addEventListener("keydown", (event) => {
  const box = event.target.closest?.(".td-tokens");
  const step = STEPS[event.key];
  if (!box || step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const tokens = [...box.querySelectorAll(":scope > [title]")];
  const from = tokens.indexOf(marked);
  const to = from < 0 && Number.isFinite(step) ? (step > 0 ? 0 : tokens.length - 1) : from + step;
  const next = tokens[Math.max(0, Math.min(tokens.length - 1, to))];
  if (next) mark(next);
});
