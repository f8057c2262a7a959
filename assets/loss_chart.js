// The loss chart: the body of a function that Gradio calls once, with `element` (the component's root), `props`
// (value: the data of app/charts.py) and `watch`. It draws with uPlot, which the component puts on the page.
//
// The component's HTML template is constant, because Gradio would otherwise tear out what uPlot built at each update.

const root = element.querySelector(".td-chart");
const plotBox = root.querySelector(".td-chart-plot");
const legend = root.querySelector(".td-chart-legend");
const logSwitch = root.querySelector("input");

const SNAP_PX = 24; // how far from the pointer an evaluation may lie and still be read out; a step is always the nearest
const color = (name) => () => getComputedStyle(root).getPropertyValue(name).trim();
const font = "11px system-ui, 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif";

// Logarithms are taken here and not by uPlot's log scale: one plot serves both views, keeps its hover and its size
// when switched, and gets ticks that make sense within one decade, where losses live.
const toAxis = (value) => (value == null || !logSwitch.checked ? value : value > 0 ? Math.log10(value) : null);
const fromAxis = (value) => (logSwitch.checked ? 10 ** value : value);

// Columns on one axis of steps: null is a value that is missing (a gap in the line), undefined one that was never
// due at this step (the line goes on).
function columns(data) {
  const evaluated = new Map(data.eval);
  const logged = new Map(data.step.map((step, i) => [step, i]));
  const steps = [...new Set([...data.step, ...evaluated.keys()])].sort((a, b) => a - b);
  const pick = (values) => steps.map((step) => (logged.has(step) ? values[logged.get(step)] : undefined));
  const evals = steps.map((step) => evaluated.get(step));
  return [steps, pick(data.loss), pick(data.smoothed), evals, pick(data.learning_rate)];
}

let table = columns(props.value);
const drawn = () => [table[0], ...table.slice(1, 4).map((values) => values.map(toAxis))];

function tidy(value) {
  if (value == null) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function evenTicks(low, high, step) {
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.max(0, Math.floor(high / step) - first + 1) }, (_, i) => (first + i) * step);
}

// Ticks of the log view: 1-2-5 in each decade, or even ones where fewer than three of those are in sight.
function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(low); power <= high; power++)
    for (const digit of high - low > 4 ? [1] : [1, 2, 5]) ticks.push(digit * 10 ** power);
  const seen = ticks.map(Math.log10).filter((tick) => tick >= low && tick <= high);
  if (seen.length >= 3) return seen;
  const [from, to] = [10 ** low, 10 ** high];
  const unit = 10 ** Math.floor(Math.log10((to - from) / 4));
  const step = [1, 2, 5, 10].map((n) => n * unit).find((n) => (to - from) / n <= 6);
  const count = Math.floor(to / step) - Math.ceil(from / step) + 1;
  return Array.from({ length: count }, (_, i) => Math.log10((Math.ceil(from / step) + i) * step));
}

// A margin of 6% around the curves; a flat curve lies in the middle.
function yRange(_plot, low, high) {
  if (low == null) return [0, 1];
  const span = high - low;
  const margin = span > 1e-9 ? span * 0.06 : logSwitch.checked ? 0.1 : Math.abs(low) * 0.1 || 1;
  return [low - margin, high + margin];
}

const xRange = (_plot, low, high) => (low == null ? [0, 10] : low === high ? [low - 1, high + 1] : [low, high]);

// The nearest value of this series, so that sparse evaluations can be read out without hitting their pixel.
function nearest(plot, series, index, x) {
  const values = table[series] ?? [];
  const distance = (i) => Math.abs(plot.valToPos(table[0][i], "x") - plot.valToPos(x, "x"));
  for (let offset = 0; offset < values.length; offset++) {
    const near = [index - offset, index + offset].filter((i) => i in values && (series !== 3 || distance(i) <= SNAP_PX));
    if (!near.length) return null;
    const found = near.filter((i) => values[i] !== undefined).sort((a, b) => distance(a) - distance(b));
    if (found.length) return found[0];
  }
  return null;
}

function lastIndex(values) {
  for (let i = values.length - 1; i >= 0; i--) if (values[i] !== undefined) return i;
  return null;
}

// What the pointer is over, or the newest values while it is elsewhere.
function readOut(plot) {
  const hovering = plot.cursor.idx != null;
  root.toggleAttribute("data-hovering", hovering);
  const index = hovering ? plot.cursor.idx : lastIndex(table[1]) ?? lastIndex(table[3]);
  const at = (series) => {
    const i = hovering ? nearest(plot, series, index, plot.posToVal(plot.cursor.left, "x")) : lastIndex(table[series]);
    return i == null ? null : table[series][i];
  };
  const [step, loss, smoothed, eval_loss, learning_rate] = [table[0][index], at(1), at(2), at(3), at(4)];
  const best = props.value.best; // one of the whole run, wherever the pointer is
  const values = { step, loss, smoothed, eval_loss, best, learning_rate };
  for (const cell of legend.querySelectorAll("[data-key]")) {
    const [key, value] = [cell.dataset.key, values[cell.dataset.key]];
    cell.hidden = (key === "eval_loss" && lastIndex(table[3]) == null) || (key === "best" && best == null);
    if (cell.hidden) continue;
    const words = key === "best" ? `${tidy(value[1])} @ ${value[0]}` : tidy(value);
    cell.querySelector("b").textContent = key === "step" ? value : words;
  }
}

// A ring around the evaluation with the lowest loss.
function markBest(plot) {
  if (props.value.best == null) return;
  const [step, loss] = props.value.best;
  const height = toAxis(loss);
  if (height == null) return;
  const { ctx } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.arc(plot.valToPos(step, "x", true), plot.valToPos(height, "y", true), 7 * uPlot.pxRatio, 0, 2 * Math.PI);
  ctx.lineWidth = 2 * uPlot.pxRatio;
  ctx.strokeStyle = color("--td-chart-eval")();
  ctx.stroke();
  ctx.restore();
}

// 1, 2, 5, 10 … : steps are whole numbers, and so are their ticks.
const wholeSteps = Array.from({ length: 8 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

const line = (name, width, show, pointSize) => ({
  stroke: color(name),
  width,
  points: { show, size: pointSize, fill: color(name) },
});

const axis = {
  stroke: color("--td-chart-text"),
  font,
  grid: { stroke: color("--td-chart-grid"), width: 1 },
  ticks: { show: false },
};
const few = () => lastIndex(table[1]) != null && table[0].length < 3; // one point makes no line
const size = () => ({ width: plotBox.clientWidth, height: plotBox.clientHeight });

const plot = new uPlot(
  {
    ...size(),
    padding: [8, 12, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, dataIdx: nearest, points: { size: 7, width: 2 } },
    scales: { x: { time: false, range: xRange }, y: { range: yRange } },
    axes: [
      { ...axis, size: 24, gap: 6, space: 60, incrs: wholeSteps },
      {
        ...axis,
        gap: 6,
        size: (_plot, ticks) => 16 + 7 * Math.max(3, ...(ticks ?? []).map((tick) => tick.length)),
        splits: (_plot, _axis, low, high, step) =>
          logSwitch.checked ? logTicks(low, high) : evenTicks(low, high, step),
        values: (_plot, ticks) => ticks.map((tick) => tidy(fromAxis(tick))),
      },
    ],
    series: [
      {},
      line("--td-chart-loss", 1, few, 5),
      line("--td-chart-smoothed", 2.5, few, 7),
      line("--td-chart-eval", 1.5, true, 7),
    ],
    hooks: { setCursor: [readOut], draw: [markBest] },
  },
  drawn(),
  plotBox,
);

function draw() {
  table = columns(props.value);
  root.dataset.points = JSON.stringify(props.value);
  root.toggleAttribute("data-empty", table[0].length === 0);
  plot.setData(drawn());
  readOut(plot);
}

draw();
watch("value", draw);
logSwitch.addEventListener("change", draw);
new ResizeObserver(() => plotBox.clientWidth > 0 && plot.setSize(size())).observe(plotBox);

// Gradio's dark mode is a class on the body; colours are read from the style sheet at each redraw.
const themes = new MutationObserver(() => (root.isConnected ? plot.redraw(false, true) : themes.disconnect()));
for (const node of [document.documentElement, document.body])
  themes.observe(node, { attributes: true, attributeFilter: ["class"] });
