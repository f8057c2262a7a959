// What the page does in the browser beside Gradio: keeps the form, closes the dialog on Escape, and says in the
// page's language when the server is gone. Runs once, from the page's head; `tunedesk.words` is set before it.

const tunedesk = window.tunedesk;

// ---- The form: kept for this browser tab, so that two tabs keep two forms ----

let restored = false; // until then a field that appears with its default is no change of the form

/** What this tab keeps under `key`, as JSON text, or what all tabs do (`shared`); empty when nothing is kept, or the
 * browser lets no page keep things. */
tunedesk.kept = (key, shared = false) => {
  try {
    return (shared ? localStorage : sessionStorage).getItem(key) ?? "";
  } catch {
    return "";
  }
};

tunedesk.keep = (key, text, shared = false) => {
  if (!restored) return;
  try {
    (shared ? localStorage : sessionStorage).setItem(key, text);
  } catch {
    // No room, or a browser that lets no page keep things: the page works all the same.
  }
};

tunedesk.restored = () => {
  restored = true;
};

/** The form has changed: its `values` are kept by `names` under `key`, and an open preview of the command follows. */
tunedesk.changed = (key, names, values) => {
  document.querySelector("#command_again")?.click();
  tunedesk.keep(key, JSON.stringify(Object.fromEntries(names.map((name, index) => [name, values[index]]))));
};

/** What Clear leaves: all but the one conversation, or, of those that are compared, the one. `kept`: app/conversation.py's
 * as_kept. Gives `kept` and the chat boxes anew, then what stands above them, now empty. */
tunedesk.cleared = (compare, kept, ...boxes) => {
  const left = (all) => all.map((one, place) => (compare === place > 0 ? [] : one));
  let conversations = null;
  try {
    conversations = JSON.parse(kept);
  } catch {
    // Nothing was kept yet.
  }
  if (conversations?.length !== boxes.length) conversations = boxes.map(() => []);
  return [JSON.stringify(left(conversations)), ...left(boxes), ...boxes.map(() => "")];
};

// An answer is copied without the numbers that stand below it.
const write = navigator.clipboard?.writeText.bind(navigator.clipboard);
if (write) {
  navigator.clipboard.writeText = (text) => write(text.replace(/\s*<small class="td-numbers">.*?<\/small>/gs, ""));
}

// ---- The dialog: .td-modal, which Python shows and hides ----

const MODAL = ".td-modal";
const REACHABLE = "button:not([disabled]), input:not([disabled]), textarea:not([disabled]), summary, [tabindex='0']";
let dialog = null;
let opener = null;

const close = () => dialog?.querySelector(".td-close")?.click();

function follow() {
  const found = document.querySelector(MODAL);
  if (found === dialog) return;
  if (found) {
    opener = document.activeElement;
    found.setAttribute("role", "dialog");
    found.setAttribute("aria-modal", "true");
    found.setAttribute("aria-label", tunedesk.words[`dialog_${found.id}`] ?? tunedesk.words.dialog);
    found.tabIndex = -1;
    found.focus();
  } else if (opener?.isConnected) {
    opener.focus();
  }
  dialog = found;
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") escape(event);
  if (event.key !== "Tab" || !dialog) return;
  const stops = [...dialog.querySelectorAll(REACHABLE)].filter((stop) => stop.offsetParent);
  const [first, last] = [stops[0], stops[stops.length - 1]];
  const inside = dialog.contains(document.activeElement) && document.activeElement !== dialog;
  if (inside && document.activeElement !== (event.shiftKey ? first : last)) {
    // Gradio's lists of choices let go of the focus where it should go on.
    const next = stops[stops.indexOf(document.activeElement) + (event.shiftKey ? -1 : 1)];
    setTimeout(() => document.activeElement === document.body && next?.isConnected && next.focus());
    return;
  }
  event.preventDefault();
  (event.shiftKey ? last : first).focus();
});

function escape(event) {
  // An open list of choices takes the key for itself.
  if (event.target.getAttribute?.("aria-expanded") === "true") return;
  if (dialog) {
    close();
    return;
  }
  const panel = document.querySelector(".td-closable");
  const elsewhere = document.activeElement?.matches("input, textarea") && !panel?.contains(document.activeElement);
  if (panel && !elsewhere) panel.querySelector(".td-close").click();
}

// What is dimmed does not take clicks: they close the dialog.
for (const kind of ["pointerdown", "mousedown", "click"]) {
  document.addEventListener(
    kind,
    (event) => {
      if (!dialog || !event.isTrusted || dialog.contains(event.target) || !dialog.isConnected) return;
      if (event.target.closest(".toast-wrap")) return;
      event.preventDefault();
      event.stopPropagation();
      if (kind === "click") close();
    },
    true,
  );
}

// ---- Gradio's own words that exist in English only: tooltips of its small buttons, and its toasts ----

const TOOLTIPS = { Copy: "copy", "Copy message": "copy", "More tabs": "more_tabs" };

function translate() {
  for (const [english, key] of Object.entries(TOOLTIPS)) {
    for (const button of document.querySelectorAll(`button[aria-label="${english}"]`)) {
      if (tunedesk.words[key] === english) continue;
      button.setAttribute("aria-label", tunedesk.words[key]);
      if (button.title) button.title = tunedesk.words[key];
    }
  }
  for (const toast of document.querySelectorAll("[data-testid='toast-body']")) {
    for (const text of toast.querySelectorAll("[data-testid='toast-text']")) {
      if (text.textContent.startsWith("Connection to the server was lost")) {
        text.textContent = tunedesk.words.lost;
        toast.dataset.lost = "";
      }
    }
    const title = toast.querySelector(".toast-title")?.firstChild;
    const words = "lost" in toast.dataset ? tunedesk.words.lost_title : tunedesk.words.error;
    if (title && title.data?.trim() === "Error" && words !== "Error") title.data = `${words} `;
    toast.querySelector("[data-testid='toast-close']")?.setAttribute("aria-label", tunedesk.words.close);
  }
}

new MutationObserver(() => {
  follow();
  translate();
}).observe(document, { childList: true, subtree: true });
