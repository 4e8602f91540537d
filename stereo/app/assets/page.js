// Two elements that the page puts into its results: maps with values under the cursor, and points.

const NEAR = 0.01; // of the distance to the middle of the points
const OVERLAP = 1.35; // of neighbouring points, so that surfaces close
const SWING = 0.32; // radians to either side, while it turns by itself
const PACE = 0.7; // radians of the swing's phase per second
const SLOW = 50; // milliseconds a frame, as on CPUs

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

const colorBar = (layer) => {
  const bar = make("div", { className: "st-bar" });
  const ends = [`${layer.low}`, `${(layer.low + layer.limit) / 2}`, `${layer.limit} ${layer.unit}`.trim()];
  bar.append(make("div", { className: `st-ramp ${layer.ramp}` }));
  bar.append(make("div", { className: "st-ticks" }, ...ends.map((t) => make("span", { textContent: t }))));
  return bar;
};

const SHOWN = {
  disparity: ["Disparity", (v) => `${v.toFixed(2)} px`],
  depth: ["Depth", (v) => `${v < 10 ? v.toFixed(3) : v.toFixed(2)} m`],
  confidence: ["Confidence", (v) => v.toFixed(2)],
  error: ["Error", (v) => `${v.toFixed(2)} px`],
};

class StereoMaps extends HTMLElement {
  connectedCallback() {
    if (this.spec) return;
    this.spec = JSON.parse(this.dataset.spec);
    const { layers, address } = this.spec;
    this.tabs = make("div", { className: "st-tabs", role: "group", ariaLabel: "What is shown" });
    this.picture = make("img", { alt: "", draggable: false });
    this.mark = make("div", { className: "st-mark", hidden: true });
    this.frame = make("div", { className: "st-frame", tabIndex: 0 }, this.picture, this.mark);
    this.frame.setAttribute("role", "application");
    this.frame.setAttribute("aria-label", "Map; arrow keys move the point whose values are read");
    this.scale = make("div", { className: "st-scale" });
    this.values = make("output", { className: "st-values" });
    this.append(this.tabs, this.frame, this.scale, this.values);
    for (const layer of layers) {
      const tab = make("button", { type: "button", textContent: layer.label });
      tab.addEventListener("click", () => this.show(layer));
      this.tabs.append(tab);
    }
    this.show(layers[0]);
    this.tell();
    fetch(address + this.spec.values)
      .then((answer) => (answer.ok ? answer.arrayBuffer() : Promise.reject(answer.status)))
      .then((buffer) => {
        this.data = new Float32Array(buffer);
        this.dataset.ready = "true";
        this.tell();
      })
      .catch(() => (this.values.textContent = "This result is no longer kept; match the pair again."));
    for (const name of ["pointermove", "pointerdown"])
      this.frame.addEventListener(name, (event) => this.point(event));
    this.frame.addEventListener("keydown", (event) => this.step(event));
  }

  show(layer) {
    this.picture.src = `${this.spec.address}${layer.key}.png`;
    this.picture.alt = layer.label;
    [...this.tabs.children].forEach((tab, i) =>
      tab.setAttribute("aria-pressed", String(this.spec.layers[i] === layer)));
    this.scale.replaceChildren(...(layer.limit === null ? [] : [colorBar(layer)]));
  }

  get columns() { return Math.ceil(this.spec.size[0] / this.spec.step); }
  get rows() { return Math.ceil(this.spec.size[1] / this.spec.step); }

  point(event) {
    const box = this.picture.getBoundingClientRect();
    this.at = [
      clamp(Math.floor(((event.clientX - box.left) / box.width) * this.columns), 0, this.columns - 1),
      clamp(Math.floor(((event.clientY - box.top) / box.height) * this.rows), 0, this.rows - 1),
    ];
    this.tell();
  }

  step(event) {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    const far = event.shiftKey ? 10 : 1;
    const [x, y] = this.at ?? [this.columns >> 1, this.rows >> 1];
    this.at = [
      clamp(x + far * move[0], 0, this.columns - 1),
      clamp(y + far * move[1], 0, this.rows - 1),
    ];
    this.tell();
  }

  tell() {
    if (!this.data || !this.at) {
      const what = this.spec.planes.map((plane) => SHOWN[plane][0].toLowerCase()).join(", ");
      this.values.replaceChildren(make("em", { textContent: `Point at the map to read ${what}.` }));
      return;
    }
    const [x, y] = this.at;
    this.mark.hidden = false;
    this.mark.style.left = `${((x + 0.5) / this.columns) * 100}%`;
    this.mark.style.top = `${((y + 0.5) / this.rows) * 100}%`;
    const read = (name, text) =>
      make("span", {}, make("b", { textContent: name }), ` ${text}`);
    const parts = [read("x, y", `${x * this.spec.step}, ${y * this.spec.step}`)];
    this.spec.planes.forEach((plane, i) => {
      const value = this.data[(i * this.rows + y) * this.columns + x];
      const [name, text] = SHOWN[plane];
      parts.push(read(name, Number.isFinite(value) ? text(value) : "none"));
    });
    this.values.replaceChildren(...parts);
  }
}

const VERTEX = `
  attribute vec3 position, color;
  uniform mat3 turn;
  uniform vec3 pivot, eye;
  uniform vec2 focal, principal, depths;
  uniform float footprint;
  varying vec3 tint;
  void main() {
    vec3 p = turn * (position - pivot) + eye;
    float near = depths.x, far = depths.y;
    gl_Position = vec4(
      focal * p.xy - principal * p.z,
      -(far + near) / (far - near) * p.z - 2.0 * far * near / (far - near),
      -p.z);
    gl_PointSize = clamp(footprint * -position.z / max(-p.z, near), 1.5, 48.0);
    vec3 low = color * 12.92, high = 1.055 * pow(max(color, 1e-6), vec3(1.0 / 2.4)) - 0.055;
    tint = mix(low, high, step(0.0031308, color));
  }`;
const FRAGMENT = `
  precision mediump float;
  varying vec3 tint;
  void main() { gl_FragColor = vec4(tint, 1.0); }`;

// Positions and colours (linear light) of a GLB file that holds one cloud, as `write_glb` makes it.
const readCloud = (buffer) => {
  const view = new DataView(buffer);
  const length = view.getUint32(12, true);
  const document = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, length)));
  const start = 20 + length + 8;
  const { POSITION, COLOR_0 } = document.meshes[0].primitives[0].attributes;
  return [POSITION, COLOR_0].map((index) => {
    const { bufferView, count } = document.accessors[index];
    return new Float32Array(buffer, start + (document.bufferViews[bufferView].byteOffset ?? 0), 3 * count);
  });
};

const median = (values) => values.slice().sort()[values.length >> 1];

class StereoCloud extends HTMLElement {
  connectedCallback() {
    if (this.spec) return;
    this.spec = JSON.parse(this.dataset.spec);
    this.canvas = make("canvas", { tabIndex: 0 });
    this.canvas.style.aspectRatio = `${this.spec.size[0]} / ${1.08 * this.spec.size[1]}`;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", "Point cloud; drag or arrow keys turn it, + and - zoom");
    this.pause = make("button", { type: "button" });
    const reset = make("button", { type: "button", textContent: "Reset" });
    this.hint = make("span", { textContent: "Drag to turn, scroll or pinch to zoom, shift-drag to move" });
    const bar = make("div", { className: "st-controls" }, this.pause, reset, this.hint);
    this.append(this.canvas, bar);
    this.gl = this.canvas.getContext("webgl", { antialias: true, alpha: true });
    if (!this.gl) {
      this.replaceChildren(make("p", { className: "st-about", textContent: "This browser shows no WebGL: open the downloaded points in another viewer." }));
      return;
    }
    this.turning = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.home();
    this.pause.addEventListener("click", () => this.setTurning(!this.turning));
    reset.addEventListener("click", () => { this.home(); this.draw(); });
    this.setTurning(this.turning);
    this.listen();
    fetch(this.spec.address)
      .then((answer) => (answer.ok ? answer.arrayBuffer() : Promise.reject(answer.status)))
      .then((buffer) => this.load(...readCloud(buffer)))
      .catch(() => (this.hint.textContent = "These points are no longer kept; match the pair again."));
  }

  disconnectedCallback() {
    this.rest();
    this.resized?.disconnect();
    this.seen?.disconnect();
    this.gl?.getExtension("WEBGL_lose_context")?.loseContext();
  }

  home() {
    Object.assign(this, { yaw: 0, pitch: 0, zoom: 1, moved: [0, 0], phase: 0 });
  }

  setTurning(turning) {
    this.turning = turning;
    this.pause.textContent = turning ? "Pause" : "Turn";
    this.last = undefined;
    this.schedule();
  }

  load(positions, colors) {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    for (const [name, values] of [["position", positions], ["color", colors]]) {
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      const place = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
    }
    gl.enable(gl.DEPTH_TEST);
    this.uniform = (name) => gl.getUniformLocation(program, name);
    this.count = positions.length / 3;
    const stride = Math.max(1, Math.floor(this.count / 20000));
    const axis = (k) => {
      const values = new Float32Array(Math.ceil(this.count / stride));
      for (let i = 0; i < values.length; i++) values[i] = positions[3 * i * stride + k];
      return median(values);
    };
    this.pivot = [axis(0), axis(1), axis(2)];
    let furthest = 0;
    for (let i = 2; i < positions.length; i += 3) furthest = Math.max(furthest, -positions[i]);
    this.furthest = furthest;
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.canvas);
    this.seen = new IntersectionObserver(([entry]) => { this.visible = entry.isIntersecting; this.last = undefined; this.schedule(); });
    this.seen.observe(this.canvas);
    this.draw();
    this.dataset.ready = "true";
  }

  schedule() {
    this.rest();
    if (!this.turning || !this.visible || !this.count) return;
    const asked = performance.now();
    this.frame = requestAnimationFrame((now) => {
      if (this.last !== undefined) this.phase += ((now - this.last) / 1000) * PACE;
      this.last = now;
      this.draw();
      const late = performance.now() - asked;
      if (late < SLOW) this.schedule();
      else this.timer = setTimeout(() => this.schedule(), late); // leaves half of the time to others
    });
  }

  rest() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
  }

  draw() {
    if (!this.count) return;
    const { gl, canvas, spec } = this;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((n) => Math.max(1, Math.round(n * ratio)));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    // At home the eye is the camera, and the whole picture fits the canvas.
    const [w, h] = spec.size;
    const fit = Math.min(width / w, height / h); // canvas pixels per pixel of the picture
    const yaw = this.yaw + SWING * Math.sin(this.phase);
    const [cy, sy, cx, sx] = [Math.cos(yaw), Math.sin(yaw), Math.cos(this.pitch), Math.sin(this.pitch)];
    const middle = -this.pivot[2];
    gl.uniformMatrix3fv(this.uniform("turn"), false, [cy, sx * sy, -cx * sy, 0, cx, sx, sy, -sx * cy, cx * cy]);
    gl.uniform3fv(this.uniform("pivot"), this.pivot);
    gl.uniform3f(this.uniform("eye"), this.pivot[0] + this.moved[0] * middle, this.pivot[1] + this.moved[1] * middle, -middle / this.zoom);
    gl.uniform2f(this.uniform("focal"), (2 * spec.focal[0] * fit) / width, (2 * spec.focal[1] * fit) / height);
    gl.uniform2f(this.uniform("principal"), ((2 * spec.principal[0] + 1 - w) * fit) / width, -((2 * spec.principal[1] + 1 - h) * fit) / height);
    gl.uniform2f(this.uniform("depths"), NEAR * middle, 4 * (this.furthest + middle / this.zoom));
    gl.uniform1f(this.uniform("footprint"), OVERLAP * spec.step * fit);
    gl.drawArrays(gl.POINTS, 0, this.count);
  }

  listen() {
    const { canvas } = this;
    const held = new Map();
    const spread = () => { const [a, b] = [...held.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
    const turn = (dx, dy) => {
      this.yaw += dx;
      this.pitch = clamp(this.pitch + dy, -1.4, 1.4);
    };
    const zoom = (factor) => (this.zoom = clamp(this.zoom * factor, 0.2, 12));
    const stop = () => {
      if (!this.turning) return;
      this.yaw += SWING * Math.sin(this.phase);
      this.phase = 0;
      this.setTurning(false);
    };
    canvas.addEventListener("pointerdown", (event) => {
      held.set(event.pointerId, [event.clientX, event.clientY]);
      canvas.setPointerCapture(event.pointerId);
      stop();
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = held.get(event.pointerId);
      if (!before) return;
      const [dx, dy] = [event.clientX - before[0], event.clientY - before[1]];
      const apart = held.size === 2 ? spread() : 0;
      held.set(event.pointerId, [event.clientX, event.clientY]);
      if (held.size === 2) zoom(spread() / Math.max(1, apart));
      else if (event.shiftKey) {
        this.moved[0] += dx / canvas.clientHeight / this.zoom;
        this.moved[1] -= dy / canvas.clientHeight / this.zoom;
      } else turn(dx * 0.006, dy * 0.006);
      this.draw();
    });
    for (const name of ["pointerup", "pointercancel"])
      canvas.addEventListener(name, (event) => held.delete(event.pointerId));
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return; // the page scrolls
      event.preventDefault();
      zoom(Math.exp(-event.deltaY * 0.0012));
      this.draw();
    }, { passive: false });
    canvas.addEventListener("dblclick", () => { this.home(); this.draw(); });
    canvas.addEventListener("keydown", (event) => {
      const act = {
        ArrowLeft: () => turn(-0.08, 0), ArrowRight: () => turn(0.08, 0),
        ArrowUp: () => turn(0, -0.08), ArrowDown: () => turn(0, 0.08),
        "+": () => zoom(1.15), "=": () => zoom(1.15), "-": () => zoom(1 / 1.15), 0: () => this.home(),
      }[event.key];
      if (!act) return;
      event.preventDefault();
      stop();
      act();
      this.draw();
    });
  }
}

// On narrow screens the result stands below the button: show that something happens there.
addEventListener("click", (event) => {
  if (!event.target.closest?.("#st-match") || innerWidth > 999) return;
  document.querySelector("#st-output").scrollIntoView({ behavior: "smooth" });
});

customElements.define("stereo-maps", StereoMaps);
customElements.define("stereo-cloud", StereoCloud);
