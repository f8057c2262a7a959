// The field that takes a dataset file: the body of a function that Gradio calls once, with `element`, the component's
// root. Sends the file by itself, for Gradio's own upload is closed, and hands its id to app/upload_panel.py.

const zone = element.querySelector(".td-drop");
const input = zone.querySelector("input");
const said = element.querySelector(".td-drop-said");
const bar = element.querySelector(".td-bar");
const stop = element.querySelector("button");
const { sending, stopped, lost, language } = zone.dataset;
let request = null;

function say(words, wrong = false) {
  said.textContent = words;
  said.toggleAttribute("data-wrong", wrong);
}

function progress(fraction) {
  bar.hidden = stop.hidden = fraction === null;
  if (fraction === null) return;
  bar.setAttribute("aria-valuenow", Math.round(100 * fraction));
  bar.firstElementChild.style.width = `${100 * fraction}%`;
}

function send(file) {
  request?.abort();
  const asked = (request = new XMLHttpRequest());
  // Beside the page, whatever prefix a proxy has put before it.
  asked.open("PUT", new URL(`../files/upload?name=${encodeURIComponent(file.name)}`, location.href));
  asked.upload.onprogress = (event) => {
    progress(event.total ? event.loaded / event.total : 0);
    say(sending.replace("{name}", file.name).replace("{percent}", Math.floor((100 * event.loaded) / (event.total || 1))));
  };
  asked.onload = () => {
    progress(null);
    let answer = {};
    try {
      answer = JSON.parse(asked.responseText);
    } catch {
      // A gateway's own page.
    }
    if (asked.status === 200 && answer.id) {
      say(file.name);
      tunedesk.uploaded = answer.id;
      document.querySelector("#upload_sent")?.click();
    } else {
      say(answer[language] ?? `${lost} (HTTP ${asked.status})`, true);
    }
  };
  asked.onerror = () => (progress(null), say(lost, true));
  asked.onabort = () => (progress(null), say(stopped));
  progress(0);
  say(sending.replace("{name}", file.name).replace("{percent}", 0));
  asked.send(file);
}

input.addEventListener("change", () => {
  if (input.files.length) send(input.files[0]);
  input.value = ""; // the same file may be chosen once more
});
stop.addEventListener("click", () => request?.abort());
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  zone.addEventListener(kind, (event) => {
    event.preventDefault();
    zone.toggleAttribute("data-over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  });
}
