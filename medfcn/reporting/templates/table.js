"use strict";
// The table of cases: sorting, finding, choosing; links anywhere on the page open their case in the viewer.

(() => {
  const element = (id) => document.getElementById(id);
  const table = element("table"), body = table.tBodies[0], rows = [...body.rows];
  const which = element("which"), find = element("find");
  let open = -1;

  function show() {
    const wanted = find.value.trim().toLowerCase(), label = which ? which.value : "worst";
    const cases = new Set();
    for (const row of rows) {
      const isOfLabel = label === "all" || (label === "worst" ? row.dataset.worst === "1" : row.dataset.label === label);
      row.hidden = !isOfLabel || !Viewer.page.cases[row.dataset.index].id.toLowerCase().includes(wanted);
      if (!row.hidden) cases.add(row.dataset.index);
    }
    element("shown").textContent = `${cases.size} of ${Viewer.page.cases.length} cases`;
  }

  function sort(button) {
    const heading = button.closest("th"), place = heading.cellIndex, falling = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = (row) => {
      const cell = row.cells[place];
      if (cell.dataset.sort !== undefined) return cell.dataset.sort === "" ? NaN : Number(cell.dataset.sort);
      return button.dataset.column === "rank" ? Number(cell.textContent) : cell.textContent;
    };
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      // Rows without a value stay at the end in both directions.
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      const order = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
      return falling ? -order : order;
    });
    body.append(...rows);
  }

  function choose(index, { scroll = false, isFirst = false } = {}) {
    open = index;
    for (const row of rows) {
      if (Number(row.dataset.index) === index) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
    const row = rows.find((other) => Number(other.dataset.index) === index && !other.hidden);
    const first = row || rows.find((other) => Number(other.dataset.index) === index);
    if (row) {
      const box = table.parentElement, top = row.offsetTop - box.clientHeight / 2;
      box.scrollTo({ top });
    }
    element("open-scores").textContent = first.dataset.headline;
    if (scroll) element("cases").scrollIntoView();
    // On loading, the browser would scroll to the case in the address.
    if (!isFirst) try { history.replaceState(null, "", `#case-${index}`); } catch { /* some browsers forbid it for files */ }
    Viewer.open(index);
  }

  function step(way) {
    const seen = [...new Set(rows.filter((row) => !row.hidden).map((row) => Number(row.dataset.index)))];
    if (!seen.length) return;
    const at = seen.indexOf(open);
    choose(seen[at < 0 ? 0 : (at + way + seen.length) % seen.length]);
  }

  table.tHead.addEventListener("click", (event) => { const button = event.target.closest("button"); if (button) sort(button); });
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    event.preventDefault();
    if (row) choose(Number(row.dataset.index));
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.defaultPrevented) return;
    const found = /^#case-(\d+)$/.exec(link.getAttribute("href") || "");
    if (!found) return;
    event.preventDefault();
    choose(Number(found[1]), { scroll: true });
  });
  find.addEventListener("input", show);
  if (which) which.addEventListener("change", show);
  element("previous").addEventListener("click", () => step(-1));
  element("next").addEventListener("click", () => step(1));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.closest("select, textarea, input:not([type=checkbox]):not([type=radio]):not([type=range])")) return;
    const act = {
      n: () => step(1), p: () => step(-1), e: Viewer.worst, w: Viewer.reset,
      i: () => Viewer.toggle("image"), r: () => Viewer.toggle("reference"), m: () => Viewer.toggle("prediction"), d: () => Viewer.toggle("difference"),
      u: () => Viewer.toggle("uncertainty"),
      "+": () => Viewer.zoomBy(1.25), "=": () => Viewer.zoomBy(1.25), "-": () => Viewer.zoomBy(0.8),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details.paper")) part.open = true; });

  show();
  const asked = /^#case-(\d+)$/.exec(location.hash);
  if (rows.length) choose(asked && Number(asked[1]) < Viewer.page.cases.length ? Number(asked[1]) : 0, { isFirst: true });
})();
