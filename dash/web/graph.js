// The topology: traffic from node to node, in layers from left to right. Widths are rates; errors and refusals have a colour,
// a dash pattern and a word. Nodes that do not fit into a layer are merged into one; the table lists all of them.

import { el, keyed, setAttribute, setHidden, setText, svg } from './dom.js';
import { number, percent, plural, rate } from './format.js';
import { table, words } from './table.js';

const FIRST = 12;
const NODE = { width: 176, height: 40, gap: 14 };
/** The height of the space where an edge passes through a layer. */
const PASS = 16;
/** The minimum width of a layer, the part of it for labels of outgoing edges, and the minimum distance of labels. */
const LAYER = 250;
const LABEL = 118;
const LINE = 16;
const SWEEPS = 12;
/** The fraction of errors from which an edge is drawn as failing. */
const FAILING = 0.01;
const KINDS = { listener: 'Listener', route: 'Route', canary: 'Canary', variant: 'Variant', rule: 'Route rule', limit: 'Rate limit', host: 'Host', cluster: 'Cluster', egressRule: 'Egress rule', rule: 'Rule', limit: 'Rate limit', host: 'Host', refused: 'Refused', redirect: 'Redirect', more: '' };
/** Kinds of nodes where traffic ends: the last layer. */
const ENDS = ['cluster', 'host', 'refused', 'redirect'];

const keyOf = (edge) => `${edge.from}\n${edge.to}`;

/** Each node's layer: the longest path from a source; nodes where traffic ends are in the last one. */
function layersOf(nodes, edges) {
  const layer = new Map(nodes.map((node) => [node.id, 0]));
  // Repeated as often as there are layers, so that it ends even for a cycle, which no policy produces.
  for (let round = 0; round < 8; round += 1) {
    let moved = false;
    for (const { from, to } of edges) {
      if (from !== to && layer.has(from) && layer.has(to) && layer.get(to) <= layer.get(from) && layer.get(from) < 7) {
        layer.set(to, layer.get(from) + 1);
        moved = true;
      }
    }
    if (!moved) break;
  }
  const last = Math.max(0, ...layer.values());
  for (const node of nodes) {
    if (ENDS.includes(node.kind)) layer.set(node.id, last);
  }
  return layer;
}

function total(edges, id, own) {
  let [arriving, leaving, trouble] = [0, 0, 0];
  for (const edge of edges) {
    if (edge.to === id) arriving += edge.requestsPerSecond ?? 0;
    if (edge.from === id) leaving += edge.requestsPerSecond ?? 0;
    if (edge.to === id || edge.from === id) trouble += (edge.errorsPerSecond ?? 0) + (edge.refusedPerSecond ?? 0);
  }
  // A plugin's rate from the server is Envoy's own count; its edges are several sections, each of which counts a request.
  return { rate: own ?? Math.max(arriving, leaving), trouble };
}

/** The graph with at most `FIRST` nodes a layer. The selection stays the same as long as `chosen` is still suitable. */
function reduced({ nodes, edges }, chosen) {
  const layer = layersOf(nodes, edges);
  const layers = [];
  for (const node of nodes) (layers[layer.get(node.id)] ??= []).push(node);
  const stands = new Map();
  const shown = [];
  layers.forEach((members, index) => {
    if (members.length <= FIRST + 1) {
      shown.push(...members);
      return;
    }
    const sums = new Map(members.map((node) => [node.id, total(edges, node.id, node.requestsPerSecond)]));
    const ranked = [...members].sort(
      (a, b) =>
        Number(chosen.has(b.id)) - Number(chosen.has(a.id)) ||
        sums.get(b.id).trouble - sums.get(a.id).trouble ||
        sums.get(b.id).rate - sums.get(a.id).rate,
    );
    shown.push(...ranked.slice(0, FIRST));
    const rest = ranked.slice(FIRST);
    const id = `more/${index}`;
    for (const node of rest) stands.set(node.id, id);
    layer.set(id, index);
    shown.push({ id, kind: 'more', label: `${rest.length} more` });
  });
  const merged = new Map();
  for (const edge of edges) {
    const from = stands.get(edge.from) ?? edge.from;
    const to = stands.get(edge.to) ?? edge.to;
    const key = `${from}\n${to}`;
    const sum = merged.get(key) ?? { from, to, requestsPerSecond: 0, errorsPerSecond: 0, refusedPerSecond: 0 };
    for (const name of ['requestsPerSecond', 'errorsPerSecond', 'refusedPerSecond']) sum[name] += edge[name] ?? 0;
    merged.set(key, sum);
  }
  return { nodes: shown, edges: [...merged.values()], layer };
}

/** The number of crossing pairs of lines between neighbouring layers. */
function crossings(lines, place) {
  let found = 0;
  lines.forEach(([a, b], index) => {
    for (const [c, d] of lines.slice(index + 1)) {
      if ((place.get(a) - place.get(c)) * (place.get(b) - place.get(d)) < 0) found += 1;
    }
  });
  return found;
}

/**
 * The layers with their nodes in an order with few edge crossings: barycentres, with a place in each layer that an edge passes
 * (Sugiyama, Tagawa and Toda 1981). `before` contains the places of the previous drawing, so that little moves. Returns the layers (ids)
 * and, by edge key, the places that the edge passes.
 */
function ordered({ nodes, edges, layer }, before) {
  const columns = [...new Set(nodes.map((node) => layer.get(node.id)))].sort((a, b) => a - b);
  const column = new Map(nodes.map((node) => [node.id, columns.indexOf(layer.get(node.id))]));
  const layers = columns.map(() => []);
  for (const node of nodes) layers[column.get(node.id)].push(node.id);
  const between = columns.map(() => []);
  const passes = new Map();
  const beside = new Map(nodes.map((node) => [node.id, [[], []]]));
  const join = (from, to, at) => {
    between[at].push([from, to]);
    beside.get(from)[1].push(to);
    beside.get(to)[0].push(from);
  };
  for (const edge of edges) {
    const key = keyOf(edge);
    const through = [];
    let last = edge.from;
    for (let at = column.get(edge.from) + 1; at < column.get(edge.to); at += 1) {
      const id = `pass/${at}/${key}`;
      through.push(id);
      layers[at].push(id);
      beside.set(id, [[], []]);
      join(last, id, at - 1);
      last = id;
    }
    if (column.get(last) !== column.get(edge.to)) join(last, edge.to, column.get(edge.to) - 1);
    passes.set(key, through);
  }
  for (const ids of layers) ids.sort((a, b) => (before.get(a)?.y ?? 1e6) - (before.get(b)?.y ?? 1e6));
  const placesOf = (all) => new Map(all.flatMap((ids) => ids.map((id, index) => [id, (index + 0.5) / ids.length])));
  const count = (all) => between.reduce((sum, lines) => sum + crossings(lines, placesOf(all)), 0);
  let best = layers.map((ids) => [...ids]);
  let fewest = count(layers);
  for (let sweep = 0; sweep < SWEEPS && fewest > 0; sweep += 1) {
    const back = sweep % 2;
    const place = placesOf(layers);
    for (const ids of back ? [...layers].reverse() : layers) {
      const centre = new Map(
        ids.map((id) => {
          const others = beside.get(id)[back];
          const sum = others.reduce((all, other) => all + place.get(other), 0);
          return [id, others.length ? sum / others.length : place.get(id)];
        }),
      );
      ids.sort((a, b) => centre.get(a) - centre.get(b));
      ids.forEach((id, index) => place.set(id, (index + 0.5) / ids.length));
    }
    const found = count(layers);
    if (found < fewest) [best, fewest] = [layers.map((ids) => [...ids]), found];
  }
  return { layers: best, passes };
}

/** A width in pixels that grows with the rate's magnitude. */
function widthOf(perSecond) {
  return perSecond > 0 ? Math.min(15, 1.5 + 3.2 * Math.log10(1 + perSecond * 2)) : 1;
}

function stateOf(edge, target) {
  if (target.kind === 'refused' || edge.refusedPerSecond > 0) return 'refused';
  if (edge.errorsPerSecond > 0 && edge.errorsPerSecond >= FAILING * edge.requestsPerSecond) return 'failing';
  return edge.requestsPerSecond > 0 ? 'flowing' : 'quiet';
}

function labelOf(edge, state) {
  if (state === 'refused') return `${rate(Math.max(edge.refusedPerSecond, edge.requestsPerSecond))} refused`;
  if (state === 'failing') return `${percent(Math.min(1, edge.errorsPerSecond / edge.requestsPerSecond))} errors (${edge.errors} of ${edge.requests})`;
  return '';
}

/** Moves labels in the same gap between layers apart, in their order. */
function spread(labelled) {
  const byGap = new Map();
  for (const edge of labelled) byGap.set(edge.x, [...(byGap.get(edge.x) ?? []), edge]);
  for (const group of byGap.values()) {
    group.sort((a, b) => a.y - b.y);
    group.forEach((edge, index) => {
      if (index > 0) edge.y = Math.max(edge.y, group[index - 1].y + LINE);
    });
  }
  return labelled;
}

/** Shortens a text's content until it fits. */
function fit(text, full, width) {
  setText(text, full);
  let length = full.length;
  while (length > 4 && text.getComputedTextLength() > width) {
    length -= 1;
    setText(text, `${full.slice(0, length)}…`);
  }
}

export function topology(section, view) {
  const drawing = svg('svg', { class: 'graph', role: 'img', 'aria-labelledby': 'topology-title', 'aria-describedby': 'topology-says' });
  const edgesAt = svg('g', {});
  const nodesAt = svg('g', {});
  const labelsAt = svg('g', {});
  drawing.append(edgesAt, nodesAt, labelsAt);
  const holder = el('div', { class: 'scroll graph-scroll', tabindex: '0', role: 'region', 'aria-label': 'Topology, drawn' }, drawing);
  const says = el('p', { id: 'topology-says', class: 'hidden' });
  const empty = el('p', { class: 'empty', hidden: true }, 'No traffic has been counted yet.');
  const sample = (state) => svg('svg', { class: 'sample', viewBox: '0 0 34 8', 'aria-hidden': 'true', focusable: 'false' }, svg('path', { class: `edge ${state}`, d: 'M1 4H33', 'stroke-width': 4 }));
  const legend = el(
    'p',
    { class: 'legend' },
    el('span', {}, sample('flowing'), 'requests, wider is more'),
    el('span', {}, sample('failing'), 'errors among them'),
    el('span', {}, sample('refused'), 'refused'),
    el('span', {}, sample('quiet'), 'none now'),
  );
  const details = el('details', { class: 'as-table' }, el('summary', {}, 'The same as a table'));
  section.append(empty, holder, says, legend, details);
  const asTable = table(
    details,
    [
      words('From', (edge) => edge.fromLabel),
      words('To', (edge) => edge.toLabel),
      words('Requests', (edge) => rate(edge.requestsPerSecond), 'number'),
      words('Errors', (edge) => rate(edge.errorsPerSecond), 'number'),
      words('Refused', (edge) => rate(edge.refusedPerSecond), 'number'),
    ],
    {
      caption: 'Topology: requests, errors and refusals between listeners, rules and clusters',
      none: 'No traffic has been counted yet.',
      what: 'connections',
      key: (edge) => `${edge.fromLabel} → ${edge.toLabel}`,
      weight: (edge) => edge.requestsPerSecond ?? 0,
    },
  );

  let chosen = new Set();
  let shape = '';
  let places = new Map();
  let passes = new Map();
  let last = null;

  /** The positions of nodes and edges; computed again only when they or the width have changed. */
  function lay(graph) {
    const next = [holder.clientWidth, ...graph.nodes.map((node) => `${node.id} ${node.label}`).sort(), ...graph.edges.map(keyOf).sort()].join('\n');
    if (next === shape) return;
    shape = next;
    const found = ordered(graph, places);
    const layers = found.layers;
    // In a narrow window the drawing scrolls, because otherwise labels would overlap nodes.
    const width = Math.max(holder.clientWidth, 640, layers.length * LAYER);
    passes = found.passes;
    const sizeOf = (id) => (id.startsWith('pass/') ? PASS : NODE.height + NODE.gap);
    const needs = layers.map((ids) => ids.reduce((sum, id) => sum + sizeOf(id), 0));
    const height = Math.max(120, ...needs) + NODE.gap;
    const room = (width - 2) / layers.length;
    const nodeWidth = Math.min(NODE.width + Math.max(0, (width - 1100) / 14), room - LABEL);
    const step = layers.length > 1 ? (width - 2 - nodeWidth) / (layers.length - 1) : 0;
    places = new Map();
    layers.forEach((ids, column) => {
      const spare = (height - needs[column]) / ids.length;
      let y = 0;
      for (const id of ids) {
        const size = sizeOf(id) + spare;
        const own = id.startsWith('pass/') ? 0 : NODE.height;
        places.set(id, { x: 1 + column * step, y: y + size / 2 - own / 2, width: nodeWidth });
        y += size;
      }
    });
    setAttribute(drawing, 'viewBox', `0 0 ${width} ${height}`);
    setAttribute(drawing, 'width', width);
    setAttribute(drawing, 'height', height);
  }

  /** The path of an edge: a curve from layer to layer, straight where it passes through one. Its label is on the first curve. */
  function way(edge, at) {
    const { from, to } = at.get(edge);
    const stops = [{ x: places.get(edge.from).x + places.get(edge.from).width, y: from }];
    for (const id of passes.get(keyOf(edge)) ?? []) {
      const { x, y, width } = places.get(id);
      stops.push({ x, y }, { x: x + width, y });
    }
    stops.push({ x: places.get(edge.to).x, y: to });
    let path = `M${stops[0].x} ${stops[0].y}`;
    for (let index = 1; index < stops.length; index += 1) {
      const [a, b] = [stops[index - 1], stops[index]];
      const bend = (b.x - a.x) / 2;
      path += index % 2 ? `C${a.x + bend} ${a.y} ${b.x - bend} ${b.y} ${b.x} ${b.y}` : `L${b.x} ${b.y}`;
    }
    return { path, x: (stops[0].x + stops[1].x) / 2, y: (stops[0].y + stops[1].y) / 2 };
  }

  /** The ends of each edge: side by side, in the order of the other ends. */
  function ports(edges) {
    const at = new Map(edges.map((edge) => [edge, {}]));
    for (const [own, other] of [['from', 'to'], ['to', 'from']]) {
      const groups = new Map();
      for (const edge of edges) {
        if (!groups.has(edge[own])) groups.set(edge[own], []);
        groups.get(edge[own]).push(edge);
      }
      for (const [id, group] of groups) {
        const place = places.get(id);
        const next = (edge) => {
          const through = passes.get(keyOf(edge)) ?? [];
          const id = (own === 'from' ? through[0] : through.at(-1)) ?? edge[other];
          return places.get(id).y + (id.startsWith('pass/') ? 0 : NODE.height / 2);
        };
        group.sort((a, b) => next(a) - next(b));
        group.forEach((edge, index) => {
          at.get(edge)[own] = place.y + (NODE.height * (index + 1)) / (group.length + 1);
        });
      }
    }
    return at;
  }

  function draw() {
    const graph = reduced(last, chosen);
    chosen = new Set(graph.nodes.map((node) => node.id));
    const byId = new Map(graph.nodes.map((node) => [node.id, node]));
    graph.edges = graph.edges.filter((edge) => byId.has(edge.from) && byId.has(edge.to) && graph.layer.get(edge.from) < graph.layer.get(edge.to));
    const edges = graph.edges;
    lay(graph);
    const at = ports(edges);
    const drawn = edges.map((edge) => {
      const state = stateOf(edge, byId.get(edge.to));
      return { ...edge, ...way(edge, at), state, label: labelOf(edge, state) };
    });
    keyed(
      edgesAt,
      drawn,
      keyOf,
      () => {
        const title = svg('title', {});
        return { node: svg('path', {}, title), title };
      },
      (row, edge) => {
        setAttribute(row.node, 'class', `edge ${edge.state}`);
        setAttribute(row.node, 'd', edge.path);
        setAttribute(row.node, 'stroke-width', widthOf(edge.requestsPerSecond || edge.refusedPerSecond).toFixed(1));
        setText(row.title, `${byId.get(edge.from).label} → ${byId.get(edge.to).label}: ${rate(edge.requestsPerSecond)}${edge.label ? `, ${edge.label}` : ''}`);
      },
    );
    keyed(
      labelsAt,
      spread(drawn.filter((edge) => edge.label)),
      keyOf,
      () => ({ node: svg('text', { class: 'edge-label', 'text-anchor': 'middle' }) }),
      (row, edge) => {
        setAttribute(row.node, 'data-state', edge.state);
        setAttribute(row.node, 'x', edge.x);
        setAttribute(row.node, 'y', (edge.y + 4).toFixed(1));
        // The counts are in the edge's title and in the table, because there is no room between two layers.
        setText(row.node, edge.label.replace(/ \(.*/, ''));
      },
    );
    keyed(
      nodesAt,
      graph.nodes,
      (node) => node.id,
      () => {
        const title = svg('title', {});
        const box = svg('rect', { rx: 7 });
        const kind = svg('text', { class: 'kind', x: 12, y: 15 });
        const name = svg('text', { class: 'name', x: 12, y: 31 });
        const sum = svg('text', { class: 'sum', y: 15, 'text-anchor': 'end' });
        return { node: svg('g', {}, title, box, kind, name, sum), title, box, kind, name, sum };
      },
      (row, node) => {
        const place = places.get(node.id);
        const sum = total(edges, node.id, node.requestsPerSecond);
        setAttribute(row.node, 'class', `node ${node.kind}`);
        setAttribute(row.node, 'transform', `translate(${place.x} ${place.y})`);
        setAttribute(row.box, 'width', place.width);
        setAttribute(row.box, 'height', NODE.height);
        setAttribute(row.sum, 'x', place.width - 10);
        setText(row.kind, KINDS[node.kind] ?? node.kind);
        setText(row.sum, rate(sum.rate));
        setText(row.title, `${KINDS[node.kind] ?? ''} ${node.label}: ${rate(sum.rate)}`);
        const wanted = `${place.width}\n${node.label}`;
        if (row.fitted !== wanted) {
          row.fitted = wanted;
          fit(row.name, node.label, place.width - 22);
        }
      },
    );
  }

  new ResizeObserver(() => last && !view.hidden && !holder.hidden && draw()).observe(holder);

  return {
    update(graph, snapshot) {
      last = graph;
      const none = last.nodes.length === 0;
      setHidden(empty, !none);
      setHidden(holder, none);
      setHidden(legend, none);
      setHidden(details, none);
      if (none) return;
      draw();
      const byId = new Map(last.nodes.map((node) => [node.id, node]));
      const named = (id) => `${KINDS[byId.get(id)?.kind] ?? ''} ${byId.get(id)?.label ?? id}`.trim();
      const refused = last.edges.reduce((sum, edge) => sum + (edge.refusedPerSecond ?? 0), 0);
      const failing = last.edges.filter((edge) => byId.has(edge.to) && stateOf(edge, byId.get(edge.to)) === 'failing');
      setText(
        says,
        `${plural(last.nodes.length, 'node')}, ${plural(last.edges.length, 'connection')}; ${number(refused)} requests a second refused; ` +
          (failing.length ? `errors between ${failing.slice(0, 5).map((edge) => `${named(edge.from)} and ${named(edge.to)}`).join('; ')}.` : 'no errors.'),
      );
      asTable.update(last.edges.map((edge) => ({ ...edge, fromLabel: named(edge.from), toLabel: named(edge.to) })), snapshot);
    },
  };
}
