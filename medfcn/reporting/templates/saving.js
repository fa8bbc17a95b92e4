"use strict";
// Buttons that save a chart as SVG or CSV, a table as CSV, and the summary as CSV or LaTeX; and the choice of colours.

(() => {
  const STYLES = ["fill", "fill-opacity", "font-family", "font-size", "font-weight", "image-rendering", "paint-order",
    "stroke", "stroke-dasharray", "stroke-linejoin", "stroke-width", "text-anchor"];
  const name = (text) => text.normalize("NFKD").replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 60).toLowerCase() || "chart";

  function save(content, kind, file) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type: kind }));
    link.download = `${name(document.title)}-${file}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // A drawing that needs no style sheet, in the colours of paper.
  function svgText(drawing) {
    const media = dark.media.mediaText;
    dark.media.mediaText = "not all";
    const copy = drawing.cloneNode(true), pairs = [[drawing, copy]];
    drawing.querySelectorAll("*").forEach((part, at) => pairs.push([part, copy.querySelectorAll("*")[at]]));
    for (const [from, to] of pairs) {
      const style = getComputedStyle(from);
      for (const key of STYLES) if (from instanceof SVGElement) to.setAttribute(key, style.getPropertyValue(key));
      for (const key of ["class", "data-csv", "tabindex", "role"]) to.removeAttribute(key);
    }
    dark.media.mediaText = media;
    // Links lead to places in this page.
    for (const link of copy.querySelectorAll("a")) link.replaceWith(...link.childNodes);
    return new XMLSerializer().serializeToString(copy);
  }

  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csvOf = (drawing) => [drawing, ...drawing.querySelectorAll("[data-csv]")].map((part) => part.dataset.csv).join("\n") + "\n";
  const words = (cell) => {
    const copy = cell.cloneNode(true);
    for (const part of copy.querySelectorAll("small")) part.prepend(" ");
    const text = (cell.dataset.sort ? (cell.dataset.sort === "1e300" ? "inf" : cell.dataset.sort) : copy.textContent).trim().replace(/\s+/g, " ");
    return /^[=+@-]/.test(text) && !Number.isFinite(Number(text)) ? `'${text}` : text;
  };
  const tableText = (table) => [...table.rows].map((row) => [...row.cells].map((cell) => quoted(words(cell))).join(",")).join("\n") + "\n";

  function button(place, text, what, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-label", `Save ${what} as ${text}`);
    made.title = made.getAttribute("aria-label");
    made.addEventListener("click", act);
    place.append(made);
  }

  function bar(after, what, choices) {
    const line = document.createElement("p");
    line.className = "save";
    for (const [text, act] of choices) button(line, text, what, act);
    after.after(line);
  }

  // ---- colours ----

  const dark = [...document.styleSheets[0].cssRules].find((rule) => rule.media && rule.media.mediaText.includes("prefers-color-scheme"));
  const MEDIA = { system: dark.media.mediaText, dark: "screen", light: "not all" };
  const choice = document.getElementById("colours");
  function colour(scheme) {
    dark.media.mediaText = MEDIA[scheme];
    choice.value = scheme;
  }
  choice.closest("[hidden]").hidden = false;
  choice.addEventListener("change", () => {
    colour(choice.value);
    try { localStorage.setItem("medfcn-colours", choice.value); } catch { /* some browsers keep nothing for files */ }
  });
  try { const kept = localStorage.getItem("medfcn-colours"); if (kept in MEDIA) colour(kept); } catch { /* as above */ }

  // ---- buttons ----

  for (const drawing of document.querySelectorAll("svg.chart, svg.strip")) {
    const figure = drawing.closest("figure"), what = figure ? `slices of ${figure.querySelector("a").textContent}` : drawing.getAttribute("aria-label");
    const choices = [["SVG", () => save(svgText(drawing), "image/svg+xml", `${name(what)}.svg`)]];
    if (drawing.dataset.csv) choices.push(["CSV", () => save(csvOf(drawing), "text/csv", `${name(what)}.csv`)]);
    bar(drawing, what, choices);
  }
  for (const table of document.querySelectorAll("table[data-save]")) {
    const what = table.dataset.save, saved = Viewer.page.saved[what] || {};
    const choices = [["CSV", () => save(saved.csv || tableText(table), "text/csv", `${name(what)}.csv`)]];
    if (saved.tex) choices.push(["LaTeX", () => save(saved.tex, "application/x-tex", `${name(what)}.tex`)]);
    bar(table.closest(".wide, .scroll"), what, choices);
  }
})();
