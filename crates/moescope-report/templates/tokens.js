"use strict";
// The token view. It reads the columns in #token-data and draws into #token-view: plain DOM, no network,
// and texts are only ever put on the page as text. Changed? Then `SCRIPT_HASH` in src/tokens changes too.
(() => {
  const view = document.getElementById("token-view");
  const $ = (name) => view.querySelector(`[data-part="${name}"]`);
  const COLOURS = 7;
  const runs = JSON.parse(document.getElementById("token-data").textContent).map(unpack);
  const state = { run: 0, layer: 0, expert: null, focus: null };
  let options = []; // elements of the tokens shown
  let indices = []; // token of each of them
  let current = 0; // option that holds the focus

  function bytes(text) {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  }

  function unpack(run) {
    run.text = new Uint32Array(bytes(run.text).buffer);
    run.ids = new Uint32Array(bytes(run.ids).buffer);
    const experts = bytes(run.experts);
    run.experts = run.expert_bytes === 2 ? new Uint16Array(experts.buffer) : experts;
    run.none = run.expert_bytes === 2 ? 65535 : 255;
    run.weights = run.weights && bytes(run.weights);
    run.entropies = run.entropies && new Uint16Array(bytes(run.entropies).buffer);
    run.logprobs = run.logprobs && new Uint16Array(bytes(run.logprobs).buffer);
    let offset = 0;
    for (const layer of run.layers) {
      layer.offset = offset;
      offset += layer.top_k;
    }
    run.stride = offset;
    return run;
  }

  const run = () => runs[state.run];
  const layer = () => run().layers[state.layer];

  // [expert, weight or null] by rank.
  function chosen(token, layer) {
    const from = token * run().stride + layer.offset;
    const found = [];
    for (let at = from; at < from + layer.top_k; at++) {
      if (run().experts[at] === run().none) continue;
      const byte = run().weights ? run().weights[at] : 255;
      found.push([run().experts[at], byte === 255 ? null : byte / 254 * run().weight_full]);
    }
    return found;
  }

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function set(element, name, value) {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  }

  function textOf(token) {
    return run().texts ? run().texts[run().text[token]] : `${run().ids[token]} `;
  }

  // ---- the text

  function drawText() {
    const value = $("sequence").value;
    const shown = value === "all" ? run().sequences : [run().sequences[value]];
    options = [];
    indices = [];
    const box = $("text");
    const groups = shown.map((sequence) => {
      const name = `${sequence.domain}, sequence ${sequence.id}`;
      const group = make("div", { role: "group", class: "sequence", "aria-label": name });
      if (shown.length > 1) group.append(make("p", { class: "head", "aria-hidden": "true" }, name));
      for (let token = sequence.start; token < sequence.end; token++) {
        if (token === sequence.generated) group.append(make("span", { class: "turn", "aria-hidden": "true" }, "generated"));
        const text = textOf(token);
        const option = make("span", { role: "option", class: "tok", tabindex: "-1", dir: "auto" }, text);
        option.dataset.at = options.length;
        options.push(option);
        indices.push(token);
        group.append(option);
        if (text.includes("↵")) group.append(make("br", {}));
      }
      if (sequence.end - sequence.start < sequence.whole) {
        group.append(make("span", { class: "turn" }, `${sequence.whole - sequence.end + sequence.start} more tokens`));
      }
      return group;
    });
    box.replaceChildren(...groups);
    box.scrollTop = 0;
    current = 0;
    if (options.length) options[0].tabIndex = 0;
    colour();
    drawExperts();
    drawDetail(indices[0]);
  }

  // In each layer the experts that come first most often in this text have colours, the others are grey.
  function colour() {
    for (const layer of run().layers) {
      const firsts = new Uint32Array(layer.experts);
      for (const token of indices) {
        const expert = run().experts[token * run().stride + layer.offset];
        if (expert !== run().none) firsts[expert]++;
      }
      layer.colour = new Uint8Array(layer.experts).fill(COLOURS);
      Array.from(firsts.keys()).filter((expert) => firsts[expert]).sort((a, b) => firsts[b] - firsts[a] || a - b)
        .slice(0, COLOURS).forEach((expert, n) => { layer.colour[expert] = n; });
    }
  }

  // ---- experts of the layer, and which tokens light up

  function drawExperts() {
    const uses = new Map();
    let lit = 0, first = 0;
    options.forEach((option, n) => {
      const experts = chosen(indices[n], layer());
      const top = experts.length ? experts[0][0] : null;
      const rank = experts.findIndex(([expert]) => expert === state.expert);
      // Only what changes is written: each write makes the browser lay a token out again.
      set(option, "data-expert", top === null ? "–" : `${top}`);
      set(option, "class", `tok c${top === null ? COLOURS : layer().colour[top]}`
        + (rank < 0 ? "" : rank === 0 ? " lit first" : " lit"));
      set(option, "aria-selected", `${rank >= 0}`);
      lit += rank >= 0;
      first += rank === 0;
      for (const [rank, [expert]] of experts.entries()) {
        const use = uses.get(expert) || [0, 0];
        use[0] += rank === 0;
        use[1]++;
        uses.set(expert, use);
      }
    });
    $("text").classList.toggle("choosing", state.expert !== null);
    const buttons = [...uses].sort((a, b) => b[1][0] - a[1][0] || b[1][1] - a[1][1] || a[0] - b[0])
      .map(([expert, [tops, all]]) => {
        const button = expertButton(expert, state.layer, all);
        button.title = `Expert ${expert}: used by ${all} of these tokens, first choice of ${tops}`;
        return button;
      });
    renew($("experts"), buttons, ["expert", "layer"]);
    const { experts, top_k } = layer();
    const share = (n) => `${(100 * n / Math.max(options.length, 1)).toFixed(1)} %`;
    $("status").textContent = state.expert === null
      ? `Layer ${layer().layer}: each token has the colour and the number of its first of ${top_k} experts. Choose an expert to light up the tokens that use it.`
      : `Expert ${state.expert} of layer ${layer().layer}: used by ${lit} of the ${options.length} tokens shown (${share(lit)}; by chance ${(100 * top_k / experts).toFixed(1)} %), first choice of ${first}.`;
    $("layer").value = state.layer;
    $("layer").setAttribute("aria-valuetext", `layer ${layer().layer}`);
    $("layer-name").textContent = `${layer().layer}`;
  }

  // Puts new buttons in place of the old ones. Of all in a box one is a stop of the Tab key, and has the focus
  // if any has: the one that was it before, known by its data, or the first.
  function renew(box, children, known) {
    const old = box.querySelector('button[tabindex="0"]');
    const held = old !== null && old === document.activeElement;
    box.replaceChildren(...children);
    const all = [...box.querySelectorAll("button")];
    const same = old && all.find((button) => known.every((name) => button.dataset[name] === old.dataset[name]));
    const stop = same || all[0];
    if (!stop) return;
    stop.tabIndex = 0;
    if (held) stop.focus({ preventScroll: true });
  }

  function expertButton(expert, layerIndex, text) {
    const of = run().layers[layerIndex];
    const pressed = expert === state.expert && layerIndex === state.layer;
    const button = make("button", { type: "button", class: `expert c${of.colour[expert]}`, tabindex: "-1",
      "aria-pressed": pressed }, make("b", {}, `${expert}`));
    if (text !== null) button.append(` ${text}`);
    button.dataset.expert = expert;
    button.dataset.layer = layerIndex;
    return button;
  }

  function choose(expert, layerIndex) {
    const same = expert === state.expert && layerIndex === state.layer;
    state.expert = same ? null : expert;
    state.layer = layerIndex;
    drawExperts();
    if (state.focus !== null) drawDetail(state.focus);
  }

  function setLayer(index) {
    state.layer = Math.min(Math.max(index, 0), run().layers.length - 1);
    // An expert of another layer is another expert.
    state.expert = null;
    drawExperts();
    if (state.focus !== null) drawDetail(state.focus);
  }

  // ---- one token in all layers

  function drawDetail(token) {
    if (token === undefined) return;
    state.focus = token;
    const r = run();
    const sequence = r.sequences.find((s) => token < s.end && token >= s.start);
    const title = make("p", { class: "which" }, make("span", { class: "word", dir: "auto" }, textOf(token)));
    const facts = [`token ${token - sequence.start} of ${sequence.domain}, sequence ${sequence.id}`, `id ${r.ids[token]}`,
      token < sequence.generated ? "prompt" : "generated"];
    if (r.logprobs && r.logprobs[token] !== 65535) facts.push(`log-probability −${(r.logprobs[token] / 1000).toFixed(2)} nats`);
    const rows = r.layers.map((of, n) => {
      const experts = make("td", { class: "experts" }, ...chosen(token, of).flatMap(([expert, weight], rank) => {
        const button = expertButton(expert, n, weight === null ? null : weight.toFixed(2));
        button.dataset.rank = rank;
        return [button, " "];
      }));
      if (!experts.childNodes.length) experts.textContent = "not recorded";
      const value = r.entropies ? r.entropies[token * r.layers.length + n] : 65535;
      const entropy = make("td", { class: "n" }, value === 65535 ? "–" : (value / 1000).toFixed(2));
      const row = make("tr", {}, make("th", { scope: "row" }, `${of.layer}`), experts, entropy);
      if (n === state.layer) row.setAttribute("aria-current", "true");
      return row;
    });
    const most = Math.log(Math.max(...r.layers.map((of) => of.experts))).toFixed(2);
    const head = make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Layer"),
      make("th", { scope: "col" }, r.weights ? "Experts in the router’s order, weights as applied"
        : "Experts in the router’s order (weights not recorded)"),
      make("th", { scope: "col", class: "n" }, r.entropies ? `Entropy, nats (≤ ${most})` : "Entropy (not recorded)")));
    const box = $("detail"), scroll = box.querySelector(".layers"), at = scroll ? scroll.scrollTop : 0;
    const layers = make("div", { class: "layers", role: "region", "aria-label": "Experts of this token in every layer" },
      make("table", {}, head, make("tbody", {}, ...rows)));
    renew(box, [title, make("p", { class: "facts-line" }, facts.join(" · ")), layers], ["layer", "rank"]);
    layers.scrollTop = at;
  }

  // ---- moving

  function focusOption(n) {
    if (!options[n]) return;
    options[current].tabIndex = -1;
    current = n;
    options[n].tabIndex = 0;
    options[n].focus();
  }

  // The nearest of some elements on the line above (-1) or below (1).
  function onLine(elements, from, direction) {
    const here = elements[from].getBoundingClientRect(), middle = (here.left + here.right) / 2;
    let line = null, best = from, distance = Infinity;
    for (let n = from + direction; elements[n]; n += direction) {
      const box = elements[n].getBoundingClientRect();
      if (Math.abs(box.top - here.top) < 2) continue;
      if (line === null) line = box.top;
      if (Math.abs(box.top - line) > 2) break;
      const apart = Math.abs((box.left + box.right) / 2 - middle);
      if (apart < distance) [best, distance] = [n, apart];
    }
    return best;
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const experts = chosen(indices[current], layer());
    const moves = {
      ArrowRight: () => focusOption(current + 1), ArrowLeft: () => focusOption(current - 1),
      ArrowDown: () => focusOption(onLine(options, current, 1)),
      ArrowUp: () => focusOption(onLine(options, current, -1)),
      Home: () => focusOption(0), End: () => focusOption(options.length - 1),
      Enter: () => experts.length && choose(experts[0][0], state.layer),
      " ": () => experts.length && choose(experts[0][0], state.layer),
      Escape: () => state.expert !== null && choose(state.expert, state.layer),
      "[": () => setLayer(state.layer - 1), "]": () => setLayer(state.layer + 1),
    };
    const rank = /^[1-9]$/.test(event.key) ? Number(event.key) - 1 : -1;
    if (experts[rank]) choose(experts[rank][0], state.layer);
    else if (moves[event.key]) moves[event.key]();
    else return;
    event.preventDefault();
  }

  // Arrows in a box of buttons.
  function keyAmongButtons(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const all = [...event.currentTarget.querySelectorAll("button")], at = all.indexOf(document.activeElement);
    const moves = {
      ArrowRight: () => at + 1, ArrowLeft: () => at - 1, Home: () => 0, End: () => all.length - 1,
      ArrowDown: () => onLine(all, at, 1), ArrowUp: () => onLine(all, at, -1),
    };
    if (at < 0 || !moves[event.key]) return;
    const to = all[moves[event.key]()];
    if (to) to.focus();
    event.preventDefault();
  }

  const optionOf = (event) => event.target.closest && event.target.closest(".tok");
  const text = $("text");
  text.addEventListener("keydown", (event) => { if (optionOf(event)) key(event); });
  text.addEventListener("mouseover", (event) => { const o = optionOf(event); if (o) drawDetail(indices[o.dataset.at]); });
  // After a look at others, the token that was chosen is shown again.
  text.addEventListener("mouseleave", () => {
    if ([text, $("detail")].some((box) => box.contains(document.activeElement))) drawDetail(indices[current]);
  });
  text.addEventListener("focusin", (event) => {
    const o = optionOf(event);
    if (!o) return;
    options[current].tabIndex = -1;
    current = Number(o.dataset.at);
    o.tabIndex = 0;
    drawDetail(indices[current]);
  });
  text.addEventListener("click", (event) => {
    const o = optionOf(event);
    if (!o) return;
    focusOption(Number(o.dataset.at));
    const experts = chosen(indices[current], layer());
    if (experts.length) choose(experts[0][0], state.layer);
  });
  for (const part of ["experts", "detail"]) {
    const box = $(part);
    box.addEventListener("keydown", keyAmongButtons);
    box.addEventListener("focusin", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      for (const other of box.querySelectorAll('button[tabindex="0"]')) other.tabIndex = -1;
      button.tabIndex = 0;
    });
    box.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) choose(Number(button.dataset.expert), Number(button.dataset.layer));
    });
  }
  $("layer").addEventListener("input", () => setLayer(Number($("layer").value)));
  $("sequence").addEventListener("change", drawText);
  $("run").addEventListener("change", drawRun);

  function drawRun() {
    const before = runs[state.run].sequences[$("sequence").value];
    state.run = Number($("run").value || 0);
    state.expert = null;
    state.layer = Math.min(state.layer, run().layers.length - 1);
    $("layer").max = run().layers.length - 1;
    const domains = new Map();
    run().sequences.forEach((sequence, n) => {
      if (!domains.has(sequence.domain)) domains.set(sequence.domain, []);
      const length = sequence.end - sequence.start;
      const of = length < sequence.whole ? ` of ${sequence.whole}` : "";
      const option = make("option", { value: n }, `${sequence.domain}, sequence ${sequence.id} (${length}${of} tokens)`);
      if (before && before.id === sequence.id) option.selected = true;
      domains.get(sequence.domain).push(option);
    });
    const groups = [...domains].map(([domain, found]) => make("optgroup", { label: domain }, ...found));
    const tokens = run().sequences.reduce((sum, s) => sum + s.end - s.start, 0);
    if (run().sequences.length > 1) groups.push(make("option", { value: "all" }, `all of these texts (${tokens} tokens)`));
    $("sequence").replaceChildren(...groups);
    drawText();
  }

  runs.forEach((run, n) => $("run").append(make("option", { value: n }, run.name)));
  $("run").closest("label").hidden = runs.length < 2;
  view.hidden = false;
  drawRun();
})();
