// Curves of several runs on one axis: the body of a function that Gradio calls once, with `element`, `props` (value: what
// app/comparison.py's `curves` gives) and `watch`. Lines are smoothed losses, dots the eval losses of the same colour.

const root = element.querySelector(".td-chart");
const plotBox = root.querySelector(".td-chart-plot");
const legend = root.querySelector(".td-chart-legend");
const logSwitch = root.querySelector("input");
const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const toAxis = (value) => (value == null || !logSwitch.checked ? value : value > 0 ? Math.log10(value) : null);
const fromAxis = (value) => (logSwitch.checked ? 10 ** value : value);
const tidy = (value) => {
  if (value == null) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
};
const size = () => ({ width: plotBox.clientWidth, height: plotBox.clientHeight });

let plot = null;
const runs = () => props.value?.runs ?? [];

// One axis of steps for all; undefined where a run has logged nothing, so that its line goes on.
function table() {
  const steps = [...new Set(runs().flatMap((run) => [...run.step, ...run.eval.map(([step]) => step)]))].sort((a, b) => a - b);
  const column = (pairs) => {
    const known = new Map(pairs);
    return steps.map((step) => (known.has(step) ? toAxis(known.get(step)) : undefined));
  };
  const lines = runs().flatMap((run) => [column(run.step.map((step, i) => [step, run.loss[i]])), column(run.eval)]);
  return [steps, ...lines];
}

function series(place) {
  const color = () => style(`--td-run-${place}`);
  const dots = { show: true, size: 7, fill: color };
  return [
    { stroke: color, width: 2, points: { show: false } },
    { stroke: color, width: 1, dash: [4, 4], points: dots },
  ];
}

function draw() {
  const data = table();
  root.toggleAttribute("data-empty", data[0].length === 0);
  root.dataset.runs = JSON.stringify(runs().map((run) => run.name));
  legend.replaceChildren(
    ...runs().map((run, place) => {
      const entry = document.createElement("span");
      const line = document.createElement("i");
      line.style.borderTop = `3px solid var(--td-run-${place})`;
      entry.append(line, run.name);
      return entry;
    }),
  );
  if (runs().some((run) => run.eval.length)) {
    const entry = document.createElement("span");
    entry.textContent = `● ${legend.dataset.eval}`;
    legend.append(entry);
  }
  plot?.destroy();
  const axis = { stroke: () => style("--td-chart-text"), grid: { stroke: () => style("--td-chart-grid"), width: 1 },
    ticks: { show: false }, font: "11px system-ui, sans-serif" };
  plot = new uPlot(
    {
      ...size(),
      padding: [8, 12, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { x: { time: false } },
      axes: [
        { ...axis, size: 24, gap: 6, space: 60, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 1e5, 1e6] },
        { ...axis, gap: 6, size: 56, values: (_plot, ticks) => ticks.map((tick) => tidy(fromAxis(tick))) },
      ],
      series: [{}, ...runs().flatMap((_run, place) => series(place))],
    },
    data,
    plotBox,
  );
}

draw();
watch("value", draw);
logSwitch.addEventListener("change", draw);
new ResizeObserver(() => plotBox.clientWidth > 0 && plot?.setSize(size())).observe(plotBox);
const themes = new MutationObserver(() => (root.isConnected ? plot?.redraw(false, true) : themes.disconnect()));
for (const node of [document.documentElement, document.body])
  themes.observe(node, { attributes: true, attributeFilter: ["class"] });
