"use strict";
// Unpacks plotly and draws the figures; the page's words and tables need none of it.
(async () => {
  const places = [...document.querySelectorAll(".plot")];
  const PAPER = 690; // px, an A4 page less its margins
  const say = (words) => places.forEach((place) => {
    place.textContent = words;
    place.style.minHeight = "0";
    place.classList.add("quiet");
  });
  const unpacked = async () => {
    const packed = atob(document.getElementById("plotly-js").textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const draw = (place) => {
    const { data, layout } = JSON.parse(place.nextElementSibling.textContent);
    const buttons = [["zoom2d", "pan2d", "resetScale2d", "toImage"]];
    const settings = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtons: buttons };
    return Plotly.newPlot(place, data, layout, settings);
  };
  if (typeof DecompressionStream === "undefined") {
    say("This browser cannot unpack the figures; words and tables are whole without them.");
    return;
  }
  try {
    const script = document.createElement("script");
    script.textContent = await unpacked();
    document.head.append(script);
    for (const place of places) await draw(place);
  } catch (error) {
    say("The figures could not be drawn; words and tables are whole without them.");
    console.error(error);
    return;
  }
  const resized = (layout) => places.forEach((place) => Plotly.relayout(place, layout));
  addEventListener("beforeprint", () => resized({ width: PAPER, autosize: false }));
  addEventListener("afterprint", () => resized({ width: null, autosize: true }));
  document.documentElement.dataset.drawn = places.length;
})();
