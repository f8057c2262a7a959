// The list of runs: the body of a function that Gradio calls once, with `element` (the component's root), `props`
// (value: the rows of app/runs_table.py) and `watch`. It draws the rows, filters them, remembers which are ticked, and
// asks app/runs_tab.py, through buttons that nobody sees, to do what is clicked. Names are text, never HTML.

const root = element.querySelector(".td-runs");
const body = root.querySelector("tbody");
const search = root.querySelector("input[type=search]");
const confirmBar = root.querySelector(".td-runs-confirm");
const more = root.querySelector(".td-runs-more");
const labels = Object.fromEntries(
  [...root.querySelectorAll("th[data-column]")].map((cell) => [cell.dataset.column, cell.textContent]),
);
const tickAll = root.querySelector("thead input");
const { least, most, mark, confirm, needed, up, down, cancel } = root.dataset;

const REFRESH_MS = 2000;
const FIRST_ROWS = 100; // more on demand: most people look at the newest
const rows = new Map(); // name → its <tr>
const ticked = new Set();
let all = false;
let waiting = 0; // runs in the queue
let tickable = []; // the runs in sight that can be ticked

const entries = () => props.value ?? [];
const chosen = () => entries().filter((entry) => ticked.has(entry.name));

function ask(button, action, names) {
  tunedesk.runsAsked = JSON.stringify({ action, names });
  document.querySelector(`#runs_${button}`)?.click();
}

function cell(row, name) {
  const made = document.createElement("td");
  made.dataset.cell = name;
  if (labels[name]) made.dataset.label = labels[name];
  row.append(made);
  return made;
}

function button(words, act, title) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = words;
  if (title) {
    made.title = title;
    made.setAttribute("aria-label", title);
  }
  made.addEventListener("click", act);
  return made;
}

function build(name) {
  const row = document.createElement("tr");
  const tick = document.createElement("input");
  tick.type = "checkbox";
  tick.setAttribute("aria-label", mark.replace("{name}", name));
  tick.addEventListener("change", () => {
    tick.checked ? ticked.add(name) : ticked.delete(name);
    draw();
  });
  cell(row, "tick").append(tick);
  const open = button(name, () => ask("open", "open", [name]));
  open.className = "td-runs-open";
  cell(row, "name").append(open);
  const state = cell(row, "state");
  state.append(document.createElement("span"));
  const queue = document.createElement("div");
  queue.className = "td-runs-queue";
  queue.append(
    button("↑", () => ask("act", "up", [name]), up),
    button("↓", () => ask("act", "down", [name]), down),
    button(cancel, () => ask("act", "cancel", [name])),
  );
  const why = document.createElement("p");
  state.append(queue, why);
  for (const column of Object.keys(labels)) if (!["name", "state"].includes(column)) cell(row, column);
  return row;
}

const put = (node, words) => {
  if (node.textContent !== words) node.textContent = words;
};

function fill(row, entry) {
  row.dataset.look = entry.look;
  const tick = row.querySelector("input");
  tick.checked = ticked.has(entry.name);
  tick.disabled = Boolean(entry.new); // what waits can be moved and cancelled, by buttons of its own
  row.querySelector(".td-runs-open").disabled = Boolean(entry.new);
  const state = row.querySelector("[data-cell=state]");
  put(state.querySelector("span"), entry.state);
  put(state.querySelector("p"), entry.why ?? "");
  const queue = state.querySelector(".td-runs-queue");
  queue.hidden = entry.place == null;
  queue.children[0].disabled = entry.place === 1;
  queue.children[1].disabled = entry.place === waiting;
  for (const column of Object.keys(labels)) {
    if (column === "name" || column === "state") continue;
    const words = column === "started" ? moment(entry.started) : entry[column];
    const found = row.querySelector(`[data-cell=${column}]`);
    put(found, words || "–");
    if (column === "model" || column === "dataset") found.title = words;
  }
}

function moment(seconds) {
  if (!seconds) return "–";
  const date = new Date(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

function draw() {
  const found = entries();
  const names = new Set(found.map((entry) => entry.name));
  for (const name of ticked) if (!names.has(name)) ticked.delete(name);
  const words = search.value.trim().toLowerCase();
  const told = (entry) => [entry.name, entry.model, entry.dataset, entry.method, entry.state].join("\n").toLowerCase();
  const matching = found.filter((entry) => !words || told(entry).includes(words));
  const shown = all ? matching : matching.slice(0, FIRST_ROWS);
  const kept = new Set(shown.map((entry) => entry.name));
  waiting = found.filter((entry) => entry.place != null).length;
  tickable = shown.filter((entry) => !entry.new).map((entry) => entry.name);
  const marked = tickable.filter((name) => ticked.has(name)).length;
  tickAll.checked = marked > 0 && marked === tickable.length;
  tickAll.indeterminate = marked > 0 && marked < tickable.length;
  for (const [name, row] of rows) {
    if (kept.has(name)) continue;
    row.remove();
    rows.delete(name);
  }
  shown.forEach((entry, place) => {
    if (!rows.has(entry.name)) rows.set(entry.name, build(entry.name));
    const row = rows.get(entry.name);
    fill(row, entry);
    if (body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null);
  });
  root.dataset.count = found.length;
  root.toggleAttribute("data-empty", found.length === 0);
  more.hidden = shown.length === matching.length;
  offer();
}

// What can be done with what is ticked.
function offer() {
  const list = chosen();
  const one = list.length === 1;
  const possible = {
    compare: list.length >= least && list.length <= most && list.every((entry) => !entry.new),
    resume: one && list[0].resumable,
    continue: one && !list[0].new,
    abort: list.length > 0 && list.every((entry) => entry.alive || entry.elsewhere),
    delete: list.length > 0 && list.every((entry) => !entry.alive && entry.place == null),
  };
  for (const [act, can] of Object.entries(possible)) root.querySelector(`[data-act=${act}]`).disabled = !can;
  if (!possible.delete) confirmBar.hidden = true;
  const goOn = [...new Set(list.flatMap((entry) => entry.needed_by ?? []))].filter((name) => !ticked.has(name));
  const words = goOn.length ? ` ${needed.replace("{names}", () => goOn.join(", "))}` : "";
  put(confirmBar.querySelector("span"), confirm.replace("{count}", list.length) + words);
}

for (const act of ["compare", "resume", "continue"])
  root.querySelector(`[data-act=${act}]`).addEventListener("click", () => ask(act, act, chosen().map((entry) => entry.name)));
root.querySelector("[data-act=abort]").addEventListener("click", () => ask("act", "abort", chosen().map((entry) => entry.name)));
root.querySelector("[data-act=delete]").addEventListener("click", () => {
  confirmBar.hidden = false;
  confirmBar.querySelector("[data-confirm=no]").focus();
});
confirmBar.querySelector("[data-confirm=no]").addEventListener("click", () => {
  confirmBar.hidden = true;
  root.querySelector("[data-act=delete]").focus();
});
confirmBar.querySelector("[data-confirm=yes]").addEventListener("click", () => {
  confirmBar.hidden = true;
  ask("act", "delete", chosen().map((entry) => entry.name));
});
search.addEventListener("input", draw);
tickAll.addEventListener("change", () => {
  for (const name of tickable) tickAll.checked ? ticked.add(name) : ticked.delete(name);
  draw();
});
more.addEventListener("click", () => {
  all = true;
  draw();
});

draw();
watch("value", draw);

// Asked for while the list is in sight only: what nobody looks at costs nothing.
const refresh = () => root.offsetParent && !document.hidden && document.querySelector("#runs_refresh")?.click();
const timer = setInterval(() => (root.isConnected ? refresh() : clearInterval(timer)), REFRESH_MS);
new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && refresh()).observe(root);
