// Line charts: an element with data-chart="<url>" shows the series that the url answers with.
import uPlot from "./vendor/uplot-1.6.32.esm.js";

const HEIGHT = 220;
const charts = new Map();

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { lines: [1, 2, 3, 4].map((n) => of(`--chart-${n}`)), text: of("--muted"), grid: of("--line") };
}

// An exponential moving average without the pull towards its first value; gaps stay gaps.
function smoothed(values, weight) {
  let last = 0;
  let mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    last = weight * last + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return last / mass;
  });
}

function draw(element) {
  const known = charts.get(element);
  if (!known?.answer) return;
  const { answer } = known;
  const place = element.querySelector(".plot");
  const state = element.querySelector(".chart-state");
  const slider = element.querySelector("[data-smoothing]");
  const weight = slider ? Number(slider.value) : 0;
  known.plot?.destroy();
  known.plot = null;
  place.replaceChildren();
  state.textContent = answer.x.length ? "" : "No measurements.";
  state.hidden = answer.x.length > 0;
  if (!answer.x.length) return;
  const paint = colours();
  const data = [answer.x];
  const series = [{ label: answer.x_label }];
  const places = [];
  answer.series.forEach((each, index) => {
    const colour = each.is_reference ? paint.text : paint.lines[each.is_bound ? 0 : index % paint.lines.length];
    const isSmoothed = weight > 0 && each.smooth;
    if (isSmoothed) {
      data.push(each.y);
      series.push({ label: `${each.label}, as measured`, stroke: `${colour}55`, width: 1, points: { show: false }, spanGaps: true });
    }
    places.push(data.length);
    data.push(isSmoothed ? smoothed(each.y, weight) : each.y);
    const look = each.is_reference ? { width: 1, dash: [4, 4] } : { width: each.is_bound ? 0.5 : 2 };
    series.push({ label: each.label, stroke: colour, ...look, pxAlign: 0, points: { show: each.y.filter((y) => y !== null).length < 3 }, spanGaps: true });
  });
  const axis = { stroke: paint.text, grid: { stroke: paint.grid, width: 1 }, ticks: { stroke: paint.grid, width: 1 }, font: "12px system-ui" };
  const bands = answer.band ? [{ series: answer.band.map((index) => places[index]), fill: `${paint.lines[0]}22` }] : [];
  const y = answer.y_range ? { range: answer.y_range } : {};
  known.plot = new uPlot(
    { width: place.clientWidth || 300, height: HEIGHT, scales: { x: { time: false }, y }, bands, axes: [{ ...axis, label: answer.x_label, labelSize: 20, labelFont: "12px system-ui" }, { ...axis, size: (_, labels) => Math.max(56, 14 + 7 * Math.max(0, ...(labels ?? []).map((label) => label.length))) }], series, legend: { live: true } },
    data,
    place,
  );
}

async function load(element) {
  const known = charts.get(element);
  // It has left the page meanwhile.
  if (!known) return;
  if (known.loading) {
    known.again = true;
    return;
  }
  known.loading = true;
  try {
    const response = await fetch(element.dataset.chart, { headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(`status ${response.status}`);
    known.answer = await response.json();
    draw(element);
  } catch (error) {
    const state = element.querySelector(".chart-state");
    state.hidden = false;
    state.textContent = `The curve could not be loaded (${error.message}).`;
  } finally {
    known.loading = false;
    if (known.again) {
      known.again = false;
      load(element);
    }
  }
}

function find() {
  for (const [element, known] of charts) {
    if (!element.isConnected) {
      known.plot?.destroy();
      charts.delete(element);
    }
  }
  for (const element of document.querySelectorAll("[data-chart]")) {
    if (charts.has(element)) continue;
    charts.set(element, { answer: null, plot: null, loading: false, again: false });
    element.querySelector("[data-smoothing]")?.addEventListener("input", () => draw(element));
    element.querySelector("[data-axis]")?.addEventListener("change", (event) => {
      element.dataset.chart = event.target.value;
      load(element);
    });
    load(element);
  }
}

export function startCharts() {
  find();
  // Parts of the page were exchanged, or an object whose chart is shown has changed.
  document.addEventListener("htmx:after:swap", find);
  document.addEventListener("chart", (event) => { if (charts.has(event.target)) load(event.target); });
  document.addEventListener("theme", () => charts.forEach((_, element) => draw(element)));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((_, element) => draw(element)));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    charts.forEach((_, element) => draw(element));
  });
}
