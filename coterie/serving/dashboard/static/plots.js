// Draws the plots of a page from their JSON, in the colours of the page's style, light or dark.
"use strict";
(() => {
  const style = () => getComputedStyle(document.documentElement);

  // Colours are named in the figures as "@name" and stand in the style sheet as --name.
  const coloured = (value, look) => {
    if (typeof value === "string") return value.startsWith("@") ? look.getPropertyValue("--" + value.slice(1)).trim() : value;
    if (Array.isArray(value)) return value.map((one) => coloured(one, look));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one, look)]));
    return value;
  };

  const draw = (place) => {
    const look = style();
    const figure = coloured(JSON.parse(document.getElementById(place.dataset.plot).textContent), look);
    const axis = { color: look.getPropertyValue("--ink").trim(), gridcolor: look.getPropertyValue("--line").trim(), zerolinecolor: look.getPropertyValue("--line").trim(), automargin: true };
    const layout = { ...figure.layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: look.getPropertyValue("--ink").trim() },
      hoverlabel: { bgcolor: look.getPropertyValue("--band").trim(), bordercolor: look.getPropertyValue("--field").trim(), font: { color: look.getPropertyValue("--ink").trim() } } };
    layout.xaxis = { ...axis, ...figure.layout.xaxis };
    layout.yaxis = { ...axis, ...figure.layout.yaxis };
    if (layout.height) place.style.minHeight = layout.height + "px";
    place.querySelector(".noplot")?.remove();
    return Plotly.react(place, figure.data, { ...layout, autosize: true }, { responsive: true, displayModeBar: false });
  };

  const drawAll = () => document.querySelectorAll("[data-plot]").forEach(draw);
  const ready = () => {
    drawAll();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
  else ready();
})();
