// Plots over time, drawn by uPlot (vendored in static/uplot).

import { element } from "./view.js";

const HEIGHT = 150;
const scheme = matchMedia("(prefers-color-scheme: dark)");

/** Return a colour of the style sheet as the browser computes it, since a canvas knows no variables. */
function colour(name) {
  const probe = element("span", { hidden: true });
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const computed = getComputedStyle(probe).color;
  probe.remove();
  return computed;
}

function axes(format, timeFormat) {
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const common = { stroke: colour("soft"), font, ticks: { show: false } };
  const grid = { stroke: colour("line"), width: 1 };
  return [
    { ...common, grid: { show: false }, size: 28, space: 90, values: (_, times) => times.map(timeFormat) },
    { ...common, grid, size: 62, space: 26, gap: 8, values: (_, values) => values.map((value) => format(value, values)) },
  ];
}

function toSeries({ label, tone, isBar }) {
  const stroke = colour(tone);
  const bars = { paths: uPlot.paths.bars({ size: [0.75, 24] }), fill: stroke, width: 0 };
  const line = { width: 2, fill: stroke.replace("rgb(", "rgba(").replace(")", ", 0.1)") };
  return { label, stroke, points: { show: false }, spanGaps: false, ...(isBar ? bars : line) };
}

/** Return values without the last one, whose time has only begun, so that a line does not fall at its end. */
const beforeNow = (values) => [...values.slice(0, -1), null];

/** Return the times of the x axis, with half a bucket at both ends, so that the outer bars are whole. */
function widened(u, first, last) {
  const half = u.data[0].length > 1 ? (u.data[0][1] - u.data[0][0]) / 2 : 0;
  return [first - half, last + half];
}

/**
 * Return a card with a plot: `{ node, show(times, values), close() }`. `series` are `{ label, tone, isBar }`, and `format`
 * writes a value. The text beside the title is that of the moment under the pointer, or `summary` of all values.
 */
export function plot(title, series, format, timeFormat, summary) {
  const readout = element("output", { class: "soft" });
  const canvas = element("div", { class: "plot", role: "img" });
  const node = element("section", { class: "card plot-card" }, element("h3", {}, title, readout), canvas);
  let drawing = null;
  let data = [[], ...series.map(() => [])];
  let summaryText = "";

  function describe(index) {
    if (index === null || index === undefined) return summaryText;
    const values = series.map(({ label }, n) => `${label} ${format(data[n + 1][index])}`);
    return `${timeFormat(data[0][index])} · ${values.join(" · ")}`;
  }

  function draw() {
    drawing?.destroy();
    const options = {
      width: canvas.clientWidth || 300,
      height: HEIGHT,
      padding: [10, 16, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: { x: { range: widened }, y: { range: (_, least, most) => [0, Math.max(most, least, 0) * 1.08 || 1] } },
      axes: axes(format, timeFormat),
      series: [{}, ...series.map(toSeries)],
      hooks: { setCursor: [(u) => (readout.textContent = describe(u.cursor.idx))] },
    };
    drawing = new uPlot(options, data, canvas);
  }

  const observer = new ResizeObserver(() => drawing?.setSize({ width: canvas.clientWidth, height: HEIGHT }));
  observer.observe(canvas);
  scheme.addEventListener("change", draw);
  return {
    node,
    show(times, ...values) {
      data = [times, ...values.map((all, n) => (series[n].isBar ? all : beforeNow(all)))];
      summaryText = summary(values);
      if (drawing) drawing.setData(data);
      else draw();
      canvas.setAttribute("aria-label", `${title}. ${summaryText}.`);
      readout.textContent = describe(drawing.cursor.idx);
    },
    close() {
      observer.disconnect();
      scheme.removeEventListener("change", draw);
      drawing?.destroy();
    },
  };
}
