"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const options = { config: charts.config, renderer: "svg", actions: false, defaultStyle: false, tooltip: { disableDefaultStyle: false } };
  const views = [];
  const isolated = new Set();

  // The rows that a click on Vega-Lite's own legend would put into the store of the selection "isolate".
  const chosen = () => [...isolated].map((rule) => ({ unit: "", fields: [{ type: "E", field: "rule" }], values: [rule] }));

  function show() {
    for (const button of document.querySelectorAll(".legend button")) {
      button.setAttribute("aria-pressed", String(isolated.has(button.dataset.rule)));
      button.parentElement.classList.toggle("isolating", isolated.size > 0);
    }
    for (const view of views) view.data("isolate_store", chosen()).runAsync();
  }

  // A click isolates a rule, a second click shows all again; with Shift, Ctrl or Command, rules are compared.
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".legend button");
    if (!button) return;
    const rule = button.dataset.rule;
    const more = event.shiftKey || event.ctrlKey || event.metaKey;
    const wasAlone = isolated.has(rule) && isolated.size === 1;
    if (!more) isolated.clear();
    if (more && isolated.has(rule)) isolated.delete(rule);
    else if (!wasAlone) isolated.add(rule);
    show();
  });

  async function draw([name, specification]) {
    const box = document.getElementById(`chart-${name}`);
    try {
      const { view } = await vegaEmbed(box, specification, options);
      if (specification.usermeta.isolates) views.push(view);
    } catch (error) {
      box.textContent = `This chart could not be drawn: ${error.message}`;
      console.error(error);
    }
  }

  Promise.all(Object.entries(charts.specifications).map(draw)).then(() => {
    if (isolated.size) show();
    document.documentElement.dataset.drawn = "yes";
  });
})();
