"use strict";
// Surfaces of masks: a mesh from the voxels (surface nets: Gibson, MICCAI 1998), drawn with WebGL2. Without
// WebGL2 nothing of this is shown.

const Surfaces = (() => {
  const MOST_VOXELS = 3e6;
  const VERTEX = `#version 300 es
    in vec3 place; in vec3 normal; uniform mat3 turn; uniform vec2 scale; out vec3 facing;
    void main() { vec3 p = turn * place; facing = turn * normal; gl_Position = vec4(p.xy * scale, -p.z * 0.001, 1.0); }`;
  const FRAGMENT = `#version 300 es
    precision mediump float; in vec3 facing; uniform vec4 colour; out vec4 seen;
    void main() {
      float light = abs(dot(normalize(facing), normalize(vec3(-0.35, 0.5, 0.8))));
      seen = vec4(colour.rgb * (0.28 + 0.72 * light), 1.0) * colour.a; }`;

  // Vertices (mm) and triangles of the surface of one label of a mask with `x` running fastest.
  function surfaceNet(mask, shape, edges, label) {
    const [X, Y, Z] = shape;
    const low = [X, Y, Z], high = [-1, -1, -1];
    for (let z = 0, at = 0; z < Z; z++) for (let y = 0; y < Y; y++) for (let x = 0; x < X; x++, at++) {
      if (mask[at] !== label) continue;
      if (x < low[0]) low[0] = x; if (x > high[0]) high[0] = x;
      if (y < low[1]) low[1] = y; if (y > high[1]) high[1] = y;
      if (z < low[2]) low[2] = z; if (z > high[2]) high[2] = z;
    }
    if (high[0] < 0) return null;
    const A = high[0] - low[0] + 3, B = high[1] - low[1] + 3, C = high[2] - low[2] + 3;
    const inside = new Uint8Array(A * B * C);
    for (let z = 1; z < C - 1; z++) for (let y = 1; y < B - 1; y++) for (let x = 1; x < A - 1; x++)
      inside[x + A * (y + B * z)] = mask[x - 1 + low[0] + X * (y - 1 + low[1] + Y * (z - 1 + low[2]))] === label ? 1 : 0;
    const cell = new Int32Array(A * B * C).fill(-1), step = [1, A, A * B], places = [];
    for (let z = 0; z < C - 1; z++) for (let y = 0; y < B - 1; y++) for (let x = 0; x < A - 1; x++) {
      const at = x + A * (y + B * z);
      let sum = 0;
      for (let corner = 0; corner < 8; corner++)
        sum += inside[at + (corner & 1) + (corner >> 1 & 1) * A + (corner >> 2) * A * B];
      if (sum === 0 || sum === 8) continue;
      cell[at] = places.length / 3;
      places.push(x + 0.5, y + 0.5, z + 0.5);
    }
    const quads = [];
    for (let z = 1; z < C - 1; z++) for (let y = 1; y < B - 1; y++) for (let x = 1; x < A - 1; x++) {
      const at = x + A * (y + B * z);
      if (!inside[at]) continue;
      for (let axis = 0; axis < 3; axis++) for (const side of [-1, 1]) {
        if (inside[at + side * step[axis]]) continue;
        // The face between a voxel and its neighbour has the four cells around its corners as its corners.
        const base = at - (side < 0 ? step[axis] : 0), u = step[(axis + 1) % 3], v = step[(axis + 2) % 3];
        const round = [cell[base - u - v], cell[base - v], cell[base], cell[base - u]];
        if (side < 0) round.reverse();
        quads.push(...round);
      }
    }
    relax(places, quads);
    const count = places.length / 3, vertices = new Float32Array(count * 3);
    for (let i = 0; i < count; i++) for (let axis = 0; axis < 3; axis++)
      vertices[3 * i + axis] = (places[3 * i + axis] - 1 + low[axis] + 0.5) * edges[axis];
    const triangles = new Uint32Array(quads.length / 4 * 6);
    for (let q = 0, t = 0; q < quads.length; q += 4)
      for (const corner of [0, 1, 2, 0, 2, 3]) triangles[t++] = quads[q + corner];
    return { vertices, normals: normalsOf(vertices, triangles), triangles };
  }

  // Each vertex moves towards its neighbours, but stays in its cell: no error is smoothed away by more than that.
  function relax(places, quads) {
    const first = Float32Array.from(places), sums = new Float32Array(places.length), counts = new Uint16Array(places.length / 3);
    for (let round = 0; round < 5; round++) {
      sums.fill(0); counts.fill(0);
      for (let q = 0; q < quads.length; q += 4) for (let corner = 0; corner < 4; corner++) {
        const a = quads[q + corner], b = quads[q + (corner + 1) % 4];
        for (let axis = 0; axis < 3; axis++) sums[3 * a + axis] += places[3 * b + axis], sums[3 * b + axis] += places[3 * a + axis];
        counts[a]++; counts[b]++;
      }
      for (let i = 0; i < places.length; i++) {
        const wanted = (places[i] + sums[i] / counts[i / 3 | 0]) / 2;
        places[i] = Math.min(first[i] + 0.5, Math.max(first[i] - 0.5, wanted));
      }
    }
  }

  function normalsOf(vertices, triangles) {
    const normals = new Float32Array(vertices.length);
    for (let t = 0; t < triangles.length; t += 3) {
      const [a, b, c] = [3 * triangles[t], 3 * triangles[t + 1], 3 * triangles[t + 2]];
      const u = [0, 1, 2].map((k) => vertices[b + k] - vertices[a + k]), v = [0, 1, 2].map((k) => vertices[c + k] - vertices[a + k]);
      const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
      for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) normals[corner + k] += n[k];
    }
    return normals;
  }

  // A mask with every `factor`-th voxel along each axis, so that a large case is drawn in reasonable time.
  function thinned(mask, shape, edges) {
    const factor = Math.ceil(Math.cbrt(mask.length / MOST_VOXELS));
    if (factor <= 1) return { mask, shape, edges };
    const to = shape.map((length) => Math.ceil(length / factor)), small = new Uint8Array(to[0] * to[1] * to[2]);
    for (let z = 0, at = 0; z < to[2]; z++) for (let y = 0; y < to[1]; y++) for (let x = 0; x < to[0]; x++)
      small[at++] = mask[x * factor + shape[0] * (y * factor + shape[1] * z * factor)];
    return { mask: small, shape: to, edges: edges.map((edge) => edge * factor) };
  }

  function create(canvas, letters) {
    const gl = canvas.getContext("webgl2", { antialias: true, alpha: false });
    if (!gl) return null;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source.trim());
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
    const uniform = (name) => gl.getUniformLocation(program, name);
    const at = { turn: uniform("turn"), scale: uniform("scale"), colour: uniform("colour") };
    let meshes = [], radius = 1, yaw = 0.5, pitch = 0.25, zoom = 1, isVisible = () => true;

    function load(parts, centre, size, visible) {
      for (const mesh of meshes) { gl.deleteVertexArray(mesh.array); mesh.buffers.forEach((buffer) => gl.deleteBuffer(buffer)); }
      isVisible = visible;
      radius = size;
      meshes = parts.map((part) => {
        const array = gl.createVertexArray(), buffers = [gl.createBuffer(), gl.createBuffer(), gl.createBuffer()];
        const moved = part.vertices.map((value, i) => value - centre[i % 3]);
        gl.bindVertexArray(array);
        [["place", moved], ["normal", part.normals]].forEach(([name, values], i) => {
          const where = gl.getAttribLocation(program, name);
          gl.bindBuffer(gl.ARRAY_BUFFER, buffers[i]);
          gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
          gl.enableVertexAttribArray(where);
          gl.vertexAttribPointer(where, 3, gl.FLOAT, false, 0, 0);
        });
        gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers[2]);
        gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, part.triangles, gl.STATIC_DRAW);
        gl.bindVertexArray(null);
        return { ...part, array, buffers, count: part.triangles.length };
      });
      draw();
    }

    // Seen from the front: the patient's right on the left, superior up, anterior towards the reader; then turned.
    function rotation() {
      const [c, s, d, t] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
      const rows = [[-c, s, 0], [-s * t, -c * t, d], [s * d, c * d, t]];
      return rows;
    }

    function draw() {
      const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
      const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
      if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
      const rows = rotation(), reach = zoom / radius, fit = Math.min(width, height);
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 1);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.enable(gl.DEPTH_TEST);
      gl.useProgram(program);
      gl.uniformMatrix3fv(at.turn, false, [0, 1, 2].flatMap((column) => rows.map((row) => row[column])));
      gl.uniform2f(at.scale, reach * fit / width, reach * fit / height);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      const shown = meshes.filter((mesh) => isVisible(mesh));
      const solid = shown.filter((mesh) => mesh.kind === "reference" || !shown.some((other) => other.kind === "reference"));
      for (const mesh of solid) paint(mesh, 1);
      gl.depthMask(false);
      for (const mesh of shown.filter((other) => !solid.includes(other))) paint(mesh, 0.5);
      gl.depthMask(true);
      drawLetters(rows, box, ratio);
    }

    function paint(mesh, alpha) {
      gl.uniform4f(at.colour, ...mesh.colour, alpha);
      gl.bindVertexArray(mesh.array);
      gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_INT, 0);
      gl.bindVertexArray(null);
    }

    function drawLetters(rows, box, ratio) {
      letters.width = Math.round(box.width * ratio);
      letters.height = Math.round(box.height * ratio);
      const pen = letters.getContext("2d"), arm = 24, x0 = 38, y0 = box.height - 36;
      pen.scale(ratio, ratio);
      pen.font = "bold 12px sans-serif"; pen.textAlign = "center"; pen.textBaseline = "middle";
      pen.strokeStyle = "#9aa6af"; pen.fillStyle = "#ffffff"; pen.lineWidth = 1.5;
      ["R", "A", "S"].forEach((letter, axis) => {
        const dx = rows[0][axis], dy = -rows[1][axis];
        pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x0 + dx * arm * 0.72, y0 + dy * arm * 0.72); pen.stroke();
        pen.fillText(letter, x0 + dx * arm * 1.05, y0 + dy * arm * 1.05);
      });
    }

    let drag = null;
    canvas.addEventListener("pointerdown", (event) => { drag = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => {
      if (!drag) return;
      yaw -= (event.clientX - drag[0]) * 0.01;
      pitch = Math.max(-1.57, Math.min(1.57, pitch + (event.clientY - drag[1]) * 0.01));
      drag = [event.clientX, event.clientY];
      draw();
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { drag = null; });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoom = Math.max(0.4, Math.min(8, zoom * Math.exp(-event.deltaY * 0.0015)));
      draw();
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const turns = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
      if (turns) { yaw += turns[0]; pitch = Math.max(-1.57, Math.min(1.57, pitch + turns[1])); }
      else if (event.key === "+" || event.key === "=") zoom = Math.min(8, zoom * 1.15);
      else if (event.key === "-") zoom = Math.max(0.4, zoom / 1.15);
      else return;
      event.preventDefault(); event.stopPropagation();
      draw();
    });
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    return { load, draw };
  }

  return { create, surfaceNet, thinned };
})();
