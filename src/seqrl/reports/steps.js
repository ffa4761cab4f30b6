"use strict";
// Steps through plans: one chart for each dimension of each field, and the map of a maze. Texts are set as texts only.
(() => {
  const SVG = "http://www.w3.org/2000/svg", WIDTH = 270, HEIGHT = 120, LEFT = 60, BOTTOM = 18;
  const add = (parent, name, attributes = {}, text = null) => {
    const spaces = ["svg", "polyline", "line", "rect", "text", "circle"].includes(name) ? SVG : "http://www.w3.org/1999/xhtml";
    const made = document.createElementNS(spaces, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    parent.append(made);
    return made;
  };
  const short = (x) => (x === null || x === undefined ? "-" : String(Number(x.toPrecision(3))));
  const known = (x) => x !== null && x !== undefined;

  // The range of a dimension over a whole episode, so that the picture stands still while plans are stepped through.
  const range = (episode, field, dim) => {
    let low = Infinity, high = -Infinity;
    const see = (values) => { for (const x of values || []) if (known(x)) { low = Math.min(low, x); high = Math.max(high, x); } };
    see((episode.happened[field] || [])[dim]);
    for (const plan of episode.plans) see((plan.imagined[field] || [])[dim]);
    if (low > high) return [0, 1];
    return low === high ? [low - 0.5, high + 0.5] : [low, high];
  };

  const chart = (parent, data, episode, plan, field, dim) => {
    const figure = add(parent, "figure"), [low, high] = range(episode, field.name, dim);
    add(figure, "figcaption", {}, field.size > 1 ? `${field.name} ${dim}` : field.name);
    const svg = add(figure, "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    const imagined = plan.imagined[field.name][dim], steps = Math.max(1, imagined.length - 1);
    const x = (k) => LEFT + (k / steps) * (WIDTH - LEFT - 8);
    const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - BOTTOM - 8);
    for (const level of [low, high]) {
      add(svg, "line", { class: "grid", x1: LEFT, x2: WIDTH - 8, y1: y(level), y2: y(level) });
      add(svg, "text", { x: LEFT - 4, y: y(level) + 4, "text-anchor": "end" }, short(level));
    }
    add(svg, "text", { x: LEFT, y: HEIGHT - 3 }, `step ${plan.time}`);
    add(svg, "text", { x: WIDTH - 8, y: HEIGHT - 3, "text-anchor": "end" }, `${plan.time + (imagined.length - 1) * data.stride}`);
    const line = (values, kind) => {
      const places = values.map((value, k) => (known(value) ? [x(k), y(value)] : null)).filter((place) => place);
      add(svg, "polyline", { class: kind, points: places.map((place) => place.map((p) => p.toFixed(1)).join(",")).join(" ") });
      if (places.length === 1) add(svg, "circle", { class: kind, cx: places[0][0], cy: places[0][1], r: 3, fill: "currentColor" });
    };
    const happened = (episode.happened[field.name] || [])[dim];
    if (happened) line(imagined.map((_, k) => happened[plan.time + k * data.stride]), "happened");
    line(imagined, "imagined");
  };

  const map = (parent, data, episode, plan) => {
    const [left, right, bottom, top] = data.maze.extent, rows = data.maze.rows;
    const svg = add(parent, "svg", { class: "map", viewBox: `${left} ${top} ${right - left} ${bottom - top}`, role: "img" });
    const wide = (right - left) / rows[0].length, tall = (bottom - top) / rows.length;
    rows.forEach((row, r) => [...row].forEach((cell, c) => {
      if (cell === "#") add(svg, "rect", { class: "wall", x: left + c * wide, y: top + r * tall, width: wide * 1.01, height: tall * 1.01 });
    }));
    const path = (dims, from, kind) => {
      const places = (dims[0] || []).map((value, k) => [dims[1][k], value]).slice(from).filter(([a, b]) => known(a) && known(b));
      add(svg, "polyline", { class: kind, points: places.map((place) => place.join(",")).join(" ") });
    };
    const way = episode.happened.observation || [];
    path(way, 0, "past");
    const last = plan.time + plan.imagined.observation[0].length * data.stride;
    path(way.map((values) => values.slice(0, last)), plan.time, "happened");
    path(plan.imagined.observation, 0, "imagined");
    const now = [way[1] && way[1][plan.time], way[0] && way[0][plan.time]];
    if (now.every(known)) add(svg, "circle", { cx: now[0], cy: now[1], r: wide / 6, fill: "#1f77b4" });
  };

  for (const box of document.querySelectorAll(".plans")) {
    const data = JSON.parse(box.querySelector("script").textContent);
    const controls = add(box, "div", { class: "controls" });
    const chosen = add(controls, "select", { "aria-label": "episode" });
    data.episodes.forEach((episode, place) => add(chosen, "option", { value: place }, `episode ${episode.number}`));
    const told = add(controls, "output");
    const steps = add(controls, "div", { class: "steps" });
    const back = add(steps, "button", { type: "button", "aria-label": "plan before" }, "\u2039");
    const slider = add(steps, "input", { type: "range", min: 0, value: 0, "aria-label": "plan" });
    const next = add(steps, "button", { type: "button", "aria-label": "next plan" }, "\u203a");
    const body = add(box, "div");
    const show = () => {
      const episode = data.episodes[Number(chosen.value)];
      slider.max = episode.plans.length - 1;
      const plan = episode.plans[Number(slider.value)];
      told.textContent = `step ${plan.time}, score ${short(plan.score)}`;
      body.replaceChildren();
      if (data.maze && plan.imagined.observation) map(body, data, episode, plan);
      const charts = add(body, "div", { class: "charts" });
      for (const field of data.fields) {
        for (let dim = 0; dim < field.dims; dim++) chart(charts, data, episode, plan, field, dim);
        if (field.size > field.dims) add(charts, "p", { class: "note" }, `${field.name}: ${field.size - field.dims} more dimensions are not shown`);
      }
    };
    const move = (by) => { slider.value = Math.max(0, Math.min(Number(slider.max), Number(slider.value) + by)); show(); };
    chosen.addEventListener("change", () => { slider.value = 0; show(); });
    slider.addEventListener("input", show);
    back.addEventListener("click", () => move(-1));
    next.addEventListener("click", () => move(1));
    show();
  }
})();
