"use strict";
// Draws each figure when it is first seen, in the colours of the page. Plotly is run once the text is there to read.
addEventListener("load", () => setTimeout(() => {
  const plotly = document.createElement("script");
  plotly.textContent = document.getElementById("plotly").textContent;
  document.head.append(plotly);
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const boxes = [...document.querySelectorAll(".plot")];
  const wide = 560; // below this many pixels there is no room for a number at each point

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function dressed(box) {
    const { data, layout } = structuredClone(figures[box.dataset.figure]);
    const quiet = colour("--quiet"), grid = colour("--grid");
    layout.font.color = quiet;
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: colour("--band"), bordercolor: colour("--rule") };
    layout.hoverlabel.font = { color: colour("--ink") };
    for (const axis of [layout.xaxis, layout.yaxis]) {
      Object.assign(axis, { gridcolor: grid, zerolinecolor: grid, linecolor: grid });
    }
    for (const trace of data) {
      if (trace.type === "heatmap") trace.textfont.color = colour("--ink");
      if (box.clientWidth < wide && trace.mode?.startsWith("markers")) {
        trace.mode = "markers";
        if (Array.isArray(trace.marker.size)) trace.marker.size = trace.marker.size.map((size) => 0.7 * size);
      }
    }
    return [data, layout];
  }

  function draw(box) {
    const [data, layout] = dressed(box);
    box.dataset.drawn = "";
    return Plotly.react(box, data, layout, { displayModeBar: false, responsive: true });
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        draw(entry.target);
      }
    }
  }, { rootMargin: "200px" });
  boxes.forEach((box) => seen.observe(box));

  const drawn = () => boxes.filter((box) => "drawn" in box.dataset);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn().forEach(draw));
  matchMedia(`(min-width: ${wide}px)`).addEventListener("change", () => drawn().forEach(draw));
  addEventListener("beforeprint", () => boxes.forEach((box) => "drawn" in box.dataset || draw(box)));
}));
