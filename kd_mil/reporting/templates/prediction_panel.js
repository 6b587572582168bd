const at = id => document.getElementById(id);
let shown = null, layer = null, marked = null;

// A panel's file calls this with its content; only the one that was asked for last is drawn.
let wanted = null;
function panel(content) { if (wanted !== null && content.name === wanted) draw(content); }

async function numbers(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Float32Array(await new Response(stream).arrayBuffer());
}

function picture(uri) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = failed;
    image.src = uri;
  });
}

async function draw(content) {
  const image = await picture(content.thumbnail);
  for (const one of content.layers) [one.cells, one.values] = [await numbers(one.grid), await numbers(one.scores)];
  if (content.name !== wanted) return;
  shown = {...content, image};
  at("name").textContent = content.name;
  at("verdict").textContent = content.verdict;
  const before = layer && layer.name;
  at("layer").replaceChildren(...content.layers.map(one => new Option(one.label, one.name)));
  choose(content.layers.some(one => one.name === before) ? before : content.shown ?? content.layers.at(-1).name);
  at("panel").hidden = false;
  document.body.classList.add("open-panel");
  at("panel").dataset.ready = content.name;
}

function choose(name) {
  layer = shown.layers.find(one => one.name === name);
  at("layer").value = name;
  at("threshold").value = layer.threshold;
  marked = null;
  const groups = [["highest", layer.highest], ["lowest", layer.lowest]].filter(([, tiles]) => tiles.length);
  at("tiles").replaceChildren(...groups.flatMap(([kind, tiles]) => {
    const title = document.createElement("h3"), row = document.createElement("div");
    title.textContent = `${kind} scores`;
    row.className = `row ${kind}`;
    row.append(...tiles.map((tile, number) => tileFigure(tile, number)));
    return [title, row];
  }));
  redraw();
}

function tileFigure([x, y, score, uri], number) {
  const figure = document.createElement("figure"), button = document.createElement("button");
  const caption = document.createElement("figcaption");
  if (uri) {
    const image = new Image();
    image.loading = "lazy";
    image.alt = "";
    image.src = uri;
    button.append(image);
  } else button.textContent = "slide not at hand";
  button.setAttribute("aria-label", `tile ${number + 1}, show its place`);
  button.onclick = button.onfocus = () => { marked = [x, y]; redraw(); };
  caption.textContent = `${number + 1}: ${score.toFixed(3)} at (${x}, ${y})`;
  figure.append(button, caption);
  return figure;
}

function redraw() {
  const threshold = Number(at("threshold").value), opacity = Number(at("opacity").value), cell = shown.cell;
  const [rows, columns] = layer.shape, small = new OffscreenCanvas(columns, rows), colored = new ImageData(columns, rows);
  let above = 0, known = 0;
  const least = Math.fround(threshold);
  layer.cells.forEach((value, place) => {
    if (isNaN(value)) return;
    known += 1;
    if (value < least) return;
    above += 1;
    const shade = 4 * Math.min(255, Math.round(255 * value));
    for (let part = 0; part < 4; part++) colored.data[4 * place + part] = COLORS[shade + part];
  });
  small.getContext("2d").putImageData(colored, 0, 0);
  const canvas = at("map"), pen = canvas.getContext("2d"), {image, downsample, origin} = shown;
  [canvas.width, canvas.height] = [image.width, image.height];
  pen.drawImage(image, 0, 0);
  pen.globalAlpha = opacity;
  pen.imageSmoothingEnabled = false;
  const [left, top] = [0, 1].map(axis => (shown.cell_origin[axis] - origin[axis]) / downsample);
  pen.drawImage(small, left, top, columns * cell / downsample, rows * cell / downsample);
  pen.globalAlpha = 1;
  if (at("marks").checked) outlines(pen);
  scaleBar(pen, canvas);
  say(above, known, threshold);
  histogram(threshold);
}

function outlines(pen) {
  const {downsample, origin, tile} = shown, width = Math.max(1.5, pen.canvas.width / 500);
  const box = ([x, y]) => pen.strokeRect((x - origin[0]) / downsample, (y - origin[1]) / downsample, tile / downsample, tile / downsample);
  pen.lineWidth = width;
  for (const [tiles, color, dash] of [[layer.lowest, "#0050c0", [3, 2]], [layer.highest, "#d00000", []]]) {
    pen.strokeStyle = color;
    pen.setLineDash(dash);
    tiles.forEach(box);
  }
  pen.setLineDash([]);
  if (marked) { pen.lineWidth = 3 * width; pen.strokeStyle = "#000"; box(marked); pen.lineWidth = width; pen.strokeStyle = "#fff"; box(marked); }
}

function scaleBar(pen, canvas) {
  at("scale").textContent = shown.mpp ? "" : "resolution not known";
  if (!shown.mpp) return;
  const um = shown.mpp * shown.downsample, lengths = [0, 1, 2, 3, 4, 5].flatMap(power => [1, 2, 5].map(step => step * 10 ** power));
  const length = lengths.filter(one => one / um <= canvas.width / 4).pop();
  if (!length) return;
  const y = canvas.height - 12, x = 12, unit = Math.max(1, canvas.width / 500);
  pen.fillStyle = "#fff";
  pen.fillRect(x - 3, y - 3, length / um + 6, 4 * unit + 6);
  pen.fillStyle = "#000";
  pen.fillRect(x, y, length / um, 4 * unit);
  at("scale").textContent = `bar: ${length >= 1000 ? `${length / 1000} mm` : `${length} µm`}`;
}

function say(above, known, threshold) {
  const share = known ? `${(100 * above / known).toFixed(1)} %` : "nothing";
  const mm2 = cells => (cells * (shown.cell * shown.mpp / 1000) ** 2).toFixed(2);
  const area = shown.mpp ? `${mm2(above)} mm² of ${mm2(known)} mm² (${share})` : `${share} of the area`;
  const least = Math.fround(threshold), tiles = layer.values.filter(value => value >= least).length;
  const count = layer.values.length ? `, ${tiles} of ${layer.values.length} tiles` : "";
  at("area").textContent = `${layer.label} ≥ ${threshold.toFixed(2)}: ${area}${count}`;
}

function histogram(threshold) {
  const canvas = at("histogram"), pen = canvas.getContext("2d"), bins = new Array(40).fill(0);
  const values = layer.values.length ? layer.values : layer.cells;
  for (const value of values) if (!isNaN(value)) bins[Math.min(39, Math.floor(40 * value))] += 1;
  const most = Math.sqrt(Math.max(...bins, 1)), step = canvas.width / 40, height = canvas.height - 2;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  bins.forEach((count, bin) => {
    pen.fillStyle = bin / 40 >= threshold - 1e-9 ? "#d07000" : "#9ab";
    const tall = Math.sqrt(count) / most * height;
    pen.fillRect(bin * step, height - tall, step - 1, tall);
  });
  pen.fillStyle = "#000";
  pen.fillRect(threshold * canvas.width - 1, 0, 2, canvas.height);
  pen.fillRect(0, height, canvas.width, 1);
  at("bins").textContent = `${layer.values.length ? "tiles" : "places"} by score, 0 to 1; heights are square roots of numbers`;
}
