"use strict";
// Three planes through a case: image, masks, differences. Volumes come compressed inside the page; they are upright,
// that is, their axes run towards right, anterior and superior, and are cropped to the masks.

const Viewer = (() => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const LETTERS = [["R", "L"], ["A", "P"], ["S", "I"]];
  const IGNORED = 255; // ignored by a reference: nothing differs from it
  const DIFFERENCES = [["#d55e00", "/", "missed"], ["#f0e442", "\\", "too much"], ["#cc79a7", "x", "other label"]];
  const element = (id) => document.getElementById(id);
  const planes = [["axial", 2], ["coronal", 1], ["sagittal", 0]].map(([name, axis]) => {
    const [across, up] = [0, 1, 2].filter((other) => other !== axis);
    return { name, axis, across, up, canvas: element("plane-" + name), slider: element("slice-" + name) };
  });
  const hidden = new Set();
  let current = null, cross = [0, 0, 0], grey = [0, 1], zoom = 1, nextWorst = 0, asked = 0, surface = null;

  async function inflate(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // ---- a case ----

  async function open(index) {
    const turn = ++asked, source = element("case-data-" + index);
    element("open-case").textContent = page.cases[index].id;
    if (!source) {
      current = null;
      planes.forEach((plane) => draw(plane));
      element("case-notes").textContent = "The volumes of this case are not in this page.";
      return;
    }
    const held = JSON.parse(source.textContent);
    if (typeof DecompressionStream === "undefined") {
      element("case-notes").textContent = "This browser cannot unpack the volumes; Chrome 80, Firefox 113, Safari 16.4 and later ones can.";
      return;
    }
    const [image, reference, prediction, doubt] = await Promise.all(
      [held.image && held.image.bytes, held.reference, held.prediction, held.uncertainty && held.uncertainty.bytes].map((text) => (text ? inflate(text) : null)));
    if (turn !== asked) return;
    const maskShape = held.shape.map((length, axis) => Math.ceil(length / held.maskFactors[axis]));
    current = { ...held, index, pixels: image, doubt, masks: { reference, prediction }, maskShape, cache: new Map() };
    cross = held.start.slice();
    nextWorst = (held.worst.findIndex((at) => at.point.join() === held.start.join()) + 1) % 3;
    planes.forEach((plane) => { plane.slider.max = held.shape[plane.axis]; });
    reset();
    tell();
    // Surfaces take a moment; slices must not wait for them.
    setTimeout(() => { if (turn === asked) loadSurfaces(); }, 30);
  }

  function tell() {
    const notes = current.notes.slice(), thin = current.image ? current.image.factors : [1, 1, 1];
    const whole = current.shape.every((length, axis) => length === current.full[axis]);
    if (!current.image) notes.unshift("No image given: masks only.");
    if (!whole) notes.push(`Cropped to the masks: ${current.shape.join(" × ")} of ${current.full.join(" × ")} voxels.`);
    if (thin.some((factor) => factor > 1)) notes.push(`The image is shown at reduced resolution, ${thin.join(" × ")} voxels as one.`);
    if (current.maskFactors.some((factor) => factor > 1))
      notes.push(`Masks are shown at reduced resolution: ${current.maskFactors.join(" × ")} voxels as one, with a label if any of them has it. Scores use all voxels.`);
    if (current.oblique) notes.push("The grid is oblique: planes are those of the voxels, near the named ones.");
    element("case-notes").textContent = notes.join(" ");
  }

  function reset() {
    grey = current.window.slice();
    zoom = 1;
    element("zoom").value = 1;
    update();
  }

  function update() {
    for (const plane of planes) {
      plane.slider.value = cross[plane.axis] + 1;
      plane.slider.setAttribute("aria-valuetext", `${cross[plane.axis] + current.offset[plane.axis] + 1} of ${current.full[plane.axis]}`);
      draw(plane);
    }
    const short = (value) => Number(value.toPrecision(4));
    element("level").value = short((grey[0] + grey[1]) / 2);
    element("width").value = short(grey[1] - grey[0]);
    const mm = apply(current.toWorld, cross), voxel = apply(current.toFile, cross).map(Math.round);
    const signed = (value) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(1);
    element("at-world").textContent = mm.map((value, axis) => `${"RAS"[axis]} ${signed(value)}`).join("  ");
    element("at-voxel").textContent = voxel.join(", ");
    element("at-value").textContent = valueAt();
    for (const kind of ["reference", "prediction"]) {
      const shown = element("at-" + kind);
      if (shown) shown.textContent = labelAt(kind);
    }
    if (element("at-uncertainty")) element("at-uncertainty").textContent = current.doubt ? (byteAt(current.doubt, current.uncertainty) / 255).toFixed(2) : "–";
  }

  const apply = (matrix, point) => [0, 1, 2].map((row) =>
    matrix[4 * row] * point[0] + matrix[4 * row + 1] * point[1] + matrix[4 * row + 2] * point[2] + matrix[4 * row + 3]);

  function byteAt(bytes, grid) {
    const [x, y, z] = cross.map((value, axis) => Math.floor(value / grid.factors[axis]));
    return bytes[x + grid.shape[0] * (y + grid.shape[1] * z)];
  }

  function valueAt() {
    const image = current.image;
    if (!image) return "–";
    const byte = byteAt(current.pixels, image);
    const value = image.low + (image.high - image.low) * byte / 255;
    const sign = byte === 0 ? "≤ " : byte === 255 ? "≥ " : "≈ ";
    return sign + Number(value.toPrecision(3));
  }

  function labelAt(kind) {
    const mask = current.masks[kind];
    if (!mask) return "no mask";
    const [x, y, z] = cross.map((value, axis) => Math.floor(value / current.maskFactors[axis]));
    const label = mask[x + current.maskShape[0] * (y + current.maskShape[1] * z)];
    if (label === IGNORED) return "ignored by the reference";
    return label ? page.labels[label - 1].name : "background";
  }

  // ---- one plane ----

  // A slice of a volume as rows from the top and columns from the left of the picture, as shown.
  function slice(volume, shape, factors, plane) {
    const width = shape[plane.across], height = shape[plane.up], cut = new Uint8Array(width * height);
    const step = [1, shape[0], shape[0] * shape[1]];
    const base = Math.floor(cross[plane.axis] / factors[plane.axis]) * step[plane.axis];
    for (let row = 0, at = 0; row < height; row++) for (let column = 0; column < width; column++)
      cut[at++] = volume[base + (height - 1 - row) * step[plane.up] + (width - 1 - column) * step[plane.across]];
    return { cut, width, height };
  }

  function field(plane) {
    const box = plane.canvas.getBoundingClientRect(), extents = current.shape.map((length, axis) => length * current.edges[axis]);
    // One scale for the three planes, so that a length is as long in each.
    const fit = Math.min(...planes.map((other) => Math.min((box.width - 8) / extents[other.across], (box.height - 8) / extents[other.up])));
    const scale = fit * zoom, size = [extents[plane.across] * scale, extents[plane.up] * scale];
    const middle = [(cross[plane.across] + 0.5) * current.edges[plane.across], (cross[plane.up] + 0.5) * current.edges[plane.up]];
    const origin = [box.width, box.height].map((room, way) => {
      if (size[way] <= room) return (room - size[way]) / 2;
      return Math.min(0, Math.max(room - size[way], room / 2 - (size[way] - middle[way] * scale)));
    });
    return { box, scale, origin, size };
  }

  function draw(plane) {
    const ratio = window.devicePixelRatio || 1, canvas = plane.canvas, box = canvas.getBoundingClientRect();
    canvas.width = Math.max(1, Math.round(box.width * ratio));
    canvas.height = Math.max(1, Math.round(box.height * ratio));
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, box.width, box.height);
    if (!current) return;
    const place = field(plane);
    pen.save();
    pen.beginPath();
    pen.rect(...place.origin, ...place.size);
    pen.clip();
    if (current.image && element("show-image").checked) drawImage(pen, plane, place);
    else { pen.fillStyle = "#20272d"; pen.fillRect(...place.origin, ...place.size); }
    if (current.doubt && isShown("uncertainty")) drawDoubt(pen, plane, place);
    drawMasks(pen, plane, place);
    pen.restore();
    drawCross(pen, plane, place);
    drawWords(pen, plane, place);
  }

  // The place of a thinned slice: its last blocks may reach beyond the crop, to the left and to the top.
  function rectangle(plane, place, shape, factors) {
    const width = shape[plane.across] * factors[plane.across] * current.edges[plane.across] * place.scale;
    const height = shape[plane.up] * factors[plane.up] * current.edges[plane.up] * place.scale;
    return [place.origin[0] + place.size[0] - width, place.origin[1] + place.size[1] - height, width, height];
  }

  function painted(width, height, paint) {
    const sheet = document.createElement("canvas");
    sheet.width = width;
    sheet.height = height;
    const pen = sheet.getContext("2d"), picture = pen.createImageData(width, height);
    paint(new Uint32Array(picture.data.buffer));
    pen.putImageData(picture, 0, 0);
    return sheet;
  }

  function drawImage(pen, plane, place) {
    const image = current.image, { cut, width, height } = slice(current.pixels, image.shape, image.factors, plane);
    const shades = new Uint32Array(256), span = (image.high - image.low) / 255;
    for (let byte = 0; byte < 256; byte++) {
      const level = Math.round(Math.min(1, Math.max(0, (image.low + byte * span - grey[0]) / (grey[1] - grey[0] || 1))) * 255);
      shades[byte] = 0xff000000 | level << 16 | level << 8 | level;
    }
    const sheet = painted(width, height, (pixels) => cut.forEach((byte, at) => { pixels[at] = shades[byte]; }));
    pen.imageSmoothingEnabled = true;
    pen.drawImage(sheet, ...rectangle(plane, place, image.shape, image.factors));
  }

  // From dark violet over green to yellow, which every kind of colour vision tells apart; nothing where the model is sure.
  const DOUBTS = Array.from({ length: 256 }, (_, byte) => {
    const share = byte / 255, stops = [[68, 1, 84], [33, 145, 140], [253, 231, 37]], at = Math.min(1, Math.floor(share * 2)), part = share * 2 - at;
    const [red, green, blue] = stops[at].map((from, way) => Math.round(from + part * (stops[at + 1][way] - from)));
    return (Math.round(Math.min(1, share * 4) * 190) << 24 | blue << 16 | green << 8 | red) >>> 0;
  });

  function drawDoubt(pen, plane, place) {
    const grid = current.uncertainty, { cut, width, height } = slice(current.doubt, grid.shape, grid.factors, plane);
    const sheet = painted(width, height, (pixels) => cut.forEach((byte, at) => { pixels[at] = DOUBTS[byte]; }));
    pen.imageSmoothingEnabled = true;
    pen.drawImage(sheet, ...rectangle(plane, place, grid.shape, grid.factors));
  }

  const isShown = (kind) => { const box = element("show-" + kind); return Boolean(box && box.checked); };
  const rgba = (colour, alpha) => {
    const number = parseInt(colour.slice(1), 16);
    return (alpha << 24 | (number & 255) << 16 | (number >> 8 & 255) << 8 | number >> 16) >>> 0;
  };

  function drawMasks(pen, plane, place) {
    const spot = rectangle(plane, place, current.maskShape, current.maskFactors), opacity = element("opacity").value / 100;
    const cuts = {};
    for (const kind of ["reference", "prediction"]) {
      const mask = current.masks[kind];
      cuts[kind] = mask ? slice(mask, current.maskShape, current.maskFactors, plane) : null;
    }
    pen.imageSmoothingEnabled = false;
    for (const kind of ["reference", "prediction"]) {
      const found = cuts[kind];
      if (!found || !opacity || !isShown(kind)) continue;
      const inks = [0, ...page.labels.map((label, at) => (hidden.has(at) ? 0 : rgba(label[kind], Math.round(opacity * 160))))];
      pen.drawImage(painted(found.width, found.height, (pixels) => found.cut.forEach((label, at) => { pixels[at] = inks[label]; })), ...spot);
    }
    if (isShown("difference")) drawDifferences(pen, cuts, spot);
    for (const kind of ["reference", "prediction"]) if (cuts[kind] && isShown(kind)) drawOutlines(pen, cuts[kind], kind, spot);
  }

  function drawDifferences(pen, cuts, spot) {
    const given = cuts.reference || cuts.prediction;
    if (!given) return;
    const none = new Uint8Array(given.cut.length);
    const drawn = cuts.reference ? cuts.reference.cut : none, found = cuts.prediction ? cuts.prediction.cut : none;
    const ratio = window.devicePixelRatio || 1;
    DIFFERENCES.forEach(([colour, hatch], kind) => {
      let any = false;
      const flat = painted(given.width, given.height, (pixels) => {
        for (let at = 0; at < pixels.length; at++) {
          const [a, b] = [drawn[at], found[at]];
          if (a === b || a === IGNORED || (hidden.has(a - 1) && (hidden.has(b - 1) || !b)) || (!a && hidden.has(b - 1))) continue;
          if (kind !== (!b ? 0 : !a ? 1 : 2)) continue;
          pixels[at] = 0xffffffff;
          any = true;
        }
      });
      if (!any) return;
      const sheet = document.createElement("canvas");
      sheet.width = pen.canvas.width;
      sheet.height = pen.canvas.height;
      const layer = sheet.getContext("2d");
      layer.setTransform(ratio, 0, 0, ratio, 0, 0);
      layer.imageSmoothingEnabled = false;
      layer.drawImage(flat, ...spot);
      layer.globalCompositeOperation = "source-in";
      layer.fillStyle = layer.createPattern(hatched(colour, hatch), "repeat");
      layer.fillRect(0, 0, sheet.width / ratio, sheet.height / ratio);
      pen.drawImage(sheet, 0, 0, sheet.width / ratio, sheet.height / ratio);
    });
  }

  // Rising lines for missed voxels, falling lines for false ones, crossed lines for the wrong label.
  function hatched(colour, hatch) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const pen = tile.getContext("2d");
    pen.fillStyle = colour + "4d";
    pen.fillRect(0, 0, 8, 8);
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.beginPath();
    if (hatch !== "\\") for (const shift of [-8, 0, 8]) { pen.moveTo(shift, 8); pen.lineTo(shift + 8, 0); }
    if (hatch !== "/") for (const shift of [-8, 0, 8]) { pen.moveTo(shift, 0); pen.lineTo(shift + 8, 8); }
    pen.stroke();
    return tile;
  }

  function drawOutlines(pen, found, kind, spot) {
    const seen = new Set(found.cut);
    seen.delete(0);
    seen.delete(IGNORED);
    const [dx, dy] = [spot[2] / found.width, spot[3] / found.height];
    for (const label of seen) {
      if (hidden.has(label - 1)) continue;
      const path = new Path2D();
      for (const loop of loops(found, label)) {
        loop.forEach(([column, row], at) => path[at ? "lineTo" : "moveTo"](spot[0] + column * dx, spot[1] + row * dy));
        path.closePath();
      }
      pen.lineJoin = "round";
      pen.setLineDash([]);
      pen.strokeStyle = "rgba(0, 0, 0, 0.4)";
      pen.lineWidth = 3.4;
      pen.stroke(path);
      pen.strokeStyle = page.labels[label - 1][kind];
      pen.setLineDash(kind === "prediction" ? [6, 3.5] : []);
      pen.lineWidth = 1.9;
      pen.stroke(path);
      pen.setLineDash([]);
    }
  }

  // Closed outlines along the edges of voxels, the mask on the right-hand side.
  function loops({ cut, width, height }, label) {
    const is = (column, row) => column >= 0 && row >= 0 && column < width && row < height && cut[column + width * row] === label;
    const onward = new Map(), key = (column, row) => column + (width + 1) * row;
    const connect = (c1, r1, c2, r2) => { const at = key(c1, r1); if (!onward.has(at)) onward.set(at, []); onward.get(at).push([c2, r2]); };
    for (let row = 0; row < height; row++) for (let column = 0; column < width; column++) {
      if (!is(column, row)) continue;
      if (!is(column, row - 1)) connect(column, row, column + 1, row);
      if (!is(column + 1, row)) connect(column + 1, row, column + 1, row + 1);
      if (!is(column, row + 1)) connect(column + 1, row + 1, column, row + 1);
      if (!is(column - 1, row)) connect(column, row + 1, column, row);
    }
    const found = [];
    for (const start of onward.keys()) while (onward.get(start).length) {
      const first = [start % (width + 1), Math.floor(start / (width + 1))], loop = [first];
      let here = onward.get(start).pop();
      while (key(...here) !== start) {
        const before = loop[loop.length - 1], choices = onward.get(key(...here));
        loop.push(here);
        const right = [here[0] - (here[1] - before[1]), here[1] + (here[0] - before[0])];
        const at = Math.max(0, choices.findIndex((choice) => choice[0] === right[0] && choice[1] === right[1]));
        here = choices.splice(at, 1)[0];
      }
      found.push(loop);
    }
    return found;
  }

  const spotOf = (plane, place) => [
    place.origin[0] + place.size[0] - (cross[plane.across] + 0.5) * current.edges[plane.across] * place.scale,
    place.origin[1] + place.size[1] - (cross[plane.up] + 0.5) * current.edges[plane.up] * place.scale];

  function drawCross(pen, plane, place) {
    const [x, y] = spotOf(plane, place), { box } = place, gap = 9;
    for (const [colour, width] of [["rgba(0,0,0,0.5)", 2.4], ["rgba(255,255,255,0.7)", 1]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.beginPath();
      for (const [x1, y1, x2, y2] of [[0, y, x - gap, y], [x + gap, y, box.width, y], [x, 0, x, y - gap], [x, y + gap, x, box.height]]) {
        pen.moveTo(x1, y1);
        pen.lineTo(x2, y2);
      }
      pen.stroke();
    }
  }

  function drawWords(pen, plane, place) {
    const { box } = place;
    const write = (text, x, y, align, font = "12px sans-serif") => {
      pen.font = font;
      pen.textAlign = align;
      pen.textBaseline = "middle";
      pen.lineWidth = 3.5;
      pen.strokeStyle = "rgba(0,0,0,0.85)";
      pen.strokeText(text, x, y);
      pen.fillStyle = "#fff";
      pen.fillText(text, x, y);
    };
    const [left, right] = LETTERS[plane.across], [top, bottom] = LETTERS[plane.up], bold = "bold 13px sans-serif";
    write(left, 9, box.height / 2, "center", bold);
    write(right, box.width - 9, box.height / 2, "center", bold);
    write(top, box.width / 2, 10, "center", bold);
    write(bottom, box.width / 2, box.height - 10, "center", bold);
    const near = current.oblique ? "near " : "";
    write(`${near}${plane.name} ${cross[plane.axis] + current.offset[plane.axis] + 1}/${current.full[plane.axis]}`, 6, 11, "left");
    const length = [100, 50, 20, 10, 5, 2, 1].find((step) => step * place.scale <= box.width / 4) || 1, end = box.width - 8, y = box.height - 8;
    for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.beginPath(); pen.moveTo(end - length * place.scale, y); pen.lineTo(end, y); pen.stroke();
    }
    write(length < 10 ? `${length} mm` : `${length / 10} cm`, end - length * place.scale / 2, y - 9, "center", "11px sans-serif");
    if (current.doubt && isShown("uncertainty")) {
      pen.imageSmoothingEnabled = true;
      pen.drawImage(painted(256, 1, (pixels) => pixels.set(DOUBTS)), 6, 22, 64, 8);
      write("0 to 1 bit", 76, 26, "left", "11px sans-serif");
    }
    if (isShown("difference")) DIFFERENCES.forEach(([colour, hatch, words], at) => {
      if (at === 2 && page.labels.length < 2) return;
      const low = box.height - 12 - 16 * at;
      pen.fillStyle = pen.createPattern(hatched(colour, hatch), "repeat");
      pen.fillRect(6, low - 5, 16, 10);
      write(words, 26, low, "left", "11px sans-serif");
    });
  }

  // ---- surfaces ----

  const rgb = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);

  function loadSurfaces() {
    if (!surface) return;
    const parts = [], edges = current.edges.map((edge, axis) => edge * current.maskFactors[axis]);
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    for (const kind of ["reference", "prediction"]) {
      if (!current.masks[kind]) continue;
      const small = Surfaces.thinned(current.masks[kind], current.maskShape, edges);
      page.labels.forEach((label, at) => {
        const mesh = Surfaces.surfaceNet(small.mask, small.shape, small.edges, at + 1);
        if (!mesh) return;
        mesh.vertices.forEach((value, i) => { low[i % 3] = Math.min(low[i % 3], value); high[i % 3] = Math.max(high[i % 3], value); });
        parts.push({ ...mesh, kind, label: at, colour: rgb(label[kind]) });
      });
    }
    const centre = low.map((value, axis) => (value + high[axis]) / 2 || 0);
    const size = Math.hypot(...low.map((value, axis) => (high[axis] - value) / 2 || 0)) || 1;
    surface.load(parts, centre, size, (mesh) => isShown(mesh.kind) && !hidden.has(mesh.label));
    element("surface-note").textContent = parts.length ? "Surfaces: drag to turn, wheel to zoom" : "Surfaces: no mask";
  }

  // ---- input ----

  const clamp = (value, length) => Math.max(0, Math.min(length - 1, value));

  function move(axis, steps) {
    if (!current) return;
    cross[axis] = clamp(cross[axis] + steps, current.shape[axis]);
    update();
  }

  function goTo(plane, event) {
    const place = field(plane), x = event.clientX - place.box.left, y = event.clientY - place.box.top;
    const along = (value, axis) => clamp(Math.floor(value / (current.edges[axis] * place.scale)), current.shape[axis]);
    cross[plane.across] = along(place.origin[0] + place.size[0] - x, plane.across);
    cross[plane.up] = along(place.origin[1] + place.size[1] - y, plane.up);
    update();
  }

  function setWindow(level, width) {
    if (!current || !Number.isFinite(level) || !(width > 0)) return;
    grey = [level - width / 2, level + width / 2];
    update();
  }

  function setZoom(value) {
    zoom = Math.max(1, Math.min(8, value));
    element("zoom").value = zoom;
    if (current) update();
  }

  function worst() {
    if (!current) return;
    cross = current.worst[nextWorst].point.slice();
    nextWorst = (nextWorst + 1) % current.worst.length;
    update();
  }

  function toggle(kind) {
    const box = element("show-" + kind);
    if (!box) return;
    box.checked = !box.checked;
    redraw();
  }

  function redraw() {
    if (current) update();
    if (surface) surface.draw();
  }

  function listen(plane) {
    let drag = null;
    plane.canvas.addEventListener("pointerdown", (event) => {
      if (!current) return;
      plane.canvas.setPointerCapture(event.pointerId);
      const isWindow = event.button === 2 || document.querySelector("input[name=drag]:checked").value === "window";
      drag = { isWindow, x: event.clientX, y: event.clientY, grey: grey.slice() };
      if (!isWindow) goTo(plane, event);
    });
    plane.canvas.addEventListener("pointermove", (event) => {
      if (!drag || !current) return;
      if (!drag.isWindow) return goTo(plane, event);
      // A quarter of the picture's width doubles the window; level moves by the window over the picture's height.
      const width = drag.grey[1] - drag.grey[0], room = plane.canvas.clientHeight;
      setWindow((drag.grey[0] + drag.grey[1]) / 2 + (event.clientY - drag.y) / room * width, width * 2 ** ((event.clientX - drag.x) / room * 2));
    });
    for (const end of ["pointerup", "pointercancel"]) plane.canvas.addEventListener(end, () => { drag = null; });
    plane.canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    let turned = 0;
    plane.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.ctrlKey) return setZoom(zoom * Math.exp(-event.deltaY * 0.002));
      // A touch pad sends many small steps, a mouse wheel few large ones.
      turned += event.deltaMode ? event.deltaY * 40 : event.deltaY;
      const steps = Math.trunc(turned / 40);
      if (!steps) return undefined;
      turned -= steps * 40;
      return move(plane.axis, -Math.sign(steps) * Math.min(Math.abs(steps), 3));
    }, { passive: false });
    plane.canvas.addEventListener("keydown", (event) => {
      const ways = { PageUp: [plane.axis, 1], PageDown: [plane.axis, -1], ArrowLeft: [plane.across, 1], ArrowRight: [plane.across, -1], ArrowUp: [plane.up, 1], ArrowDown: [plane.up, -1] };
      if (!ways[event.key]) return;
      event.preventDefault();
      move(...ways[event.key]);
    });
    plane.slider.addEventListener("input", () => { cross[plane.axis] = plane.slider.value - 1; if (current) update(); });
  }

  function start() {
    planes.forEach(listen);
    for (const kind of ["image", "reference", "prediction", "difference", "uncertainty"]) {
      const box = element("show-" + kind);
      if (box) box.addEventListener("change", redraw);
    }
    element("opacity").addEventListener("input", redraw);
    element("zoom").addEventListener("input", (event) => setZoom(Number(event.target.value)));
    element("reset").addEventListener("click", () => { if (current) reset(); });
    if (element("worst")) element("worst").addEventListener("click", worst);
    for (const id of ["level", "width"]) element(id).addEventListener("change", () => setWindow(Number(element("level").value), Number(element("width").value)));
    if (page.labels.length > 1) page.labels.forEach((label, at) => {
      const line = document.createElement("label"), box = document.createElement("input"), swatch = document.createElement("span");
      box.type = "checkbox";
      box.checked = true;
      box.addEventListener("change", () => { if (box.checked) hidden.delete(at); else hidden.add(at); redraw(); });
      swatch.className = "swatch";
      swatch.style.background = label.prediction;
      line.append(box, swatch, label.name);
      element("labels").append(line);
    });
    surface = Surfaces.create(element("surface"), element("surface-letters"));
    if (!surface) {
      element("surface").remove();
      element("surface-letters").remove();
      element("surface-note").textContent = "No surfaces: this browser offers no WebGL2.";
    }
    new ResizeObserver(redraw).observe(element("viewer"));
  }

  start();
  const state = () => ({ index: current && current.index, cross: cross.slice(), grey: grey.slice(), zoom });
  return { page, open, worst, toggle, state, reset: () => current && reset(), zoomBy: (factor) => setZoom(zoom * factor), hasSurfaces: () => Boolean(surface) };
})();
