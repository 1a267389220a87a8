// The topology as a picture, in columns from left to right, and as a table for whoever does not see it.

import { h, number, rate, s, table } from "/dom.js";

const WORDS = {
  plugin: "plugin", rule: "route rule", canary: "canary", limit: "rate limit", egress: "egress rule", route: "route",
  cluster: "cluster", host: "host", refused: "refused",
};
const COLUMN = { plugin: 0, rule: 1, canary: 1, limit: 1, egress: 1, route: 2, host: 2, refused: 3, cluster: 3 };
const WIDTH = 1180, BOX = 215, HEIGHT = 34, GAP = 12;

const shorten = (text) => (text.length > 26 ? `${text.slice(0, 25)}…` : text);

/** The picture of a topology. */
export function graph({ nodes, edges, hidden }) {
  if (!edges.length) {
    return [h("p", { class: "none" }, "No policy is known here yet. From a Prometheus alone there is no picture: it knows no policies.")];
  }
  const columns = [[], [], [], []];
  for (const node of nodes) columns[COLUMN[node.kind]].push(node);
  const weight = (node) => edges.reduce((sum, edge) => sum + (edge.from === node.id || edge.to === node.id ? edge.requestsPerSecond : 0), 0);
  const used = columns.filter((column) => column.length);
  const place = new Map();
  const tallest = Math.max(...used.map((column) => column.length));
  const height = tallest * (HEIGHT + GAP) + GAP;
  used.forEach((column, c) => {
    // Near those that they are called by, so that few lines cross; the first column by name, so that it stays.
    const middle = (node) => {
      const from = edges.filter((edge) => edge.to === node.id && place.has(edge.from)).map((edge) => place.get(edge.from).y);
      return from.length ? from.reduce((a, b) => a + b, 0) / from.length : 0;
    };
    column.sort((a, b) => (c ? middle(a) - middle(b) : 0) || (a.label < b.label ? -1 : 1));
    const step = height / column.length;
    column.forEach((node, i) => place.set(node.id, {
      x: used.length > 1 ? (c * (WIDTH - BOX)) / (used.length - 1) : 0, y: step * (i + 0.5), node, weight: weight(node),
    }));
  });
  const most = Math.max(...edges.map((edge) => edge.requestsPerSecond), 0.001);
  const line = (edge) => {
    const from = place.get(edge.from), to = place.get(edge.to);
    const x1 = from.x + BOX, x2 = to.x, bend = Math.max(30, (x2 - x1) / 2);
    const bad = edge.errorsPerSecond > 0;
    const kind = bad ? "errors" : edge.requestsPerSecond > 0 ? null : "idle";
    return s("path", {
      "data-key": `${edge.from} ${edge.to}`, class: kind, "stroke-width": (1 + 7 * Math.sqrt(edge.requestsPerSecond / most)).toFixed(1),
      d: `M${x1} ${from.y}C${x1 + bend} ${from.y} ${x2 - bend} ${to.y} ${x2} ${to.y}`,
    });
  };
  const box = ({ x, y, node }) => {
    const sum = (key, field) => edges.reduce((all, edge) => all + (edge[key] === node.id ? edge[field] : 0), 0);
    const inward = sum("to", "requestsPerSecond") || sum("from", "requestsPerSecond");
    const errors = node.kind === "refused" ? inward : sum("to", "errorsPerSecond");
    return s("g", { "data-key": node.id, class: node.kind },
      s("rect", { x, y: y - HEIGHT / 2, width: BOX, height: HEIGHT, rx: 6 }),
      s("text", { x: x + 8, y: y - 4 }, shorten(node.label)),
      s("text", { x: x + 8, y: y + 11, class: "kind" }, WORDS[node.kind]),
      s("text", { x: x + BOX - 8, y: y + 11, class: errors > 0 ? "rate bad" : "rate", "text-anchor": "end" },
        errors > 0 && node.kind !== "refused" ? `${rate(inward)}, ${number(errors)} bad` : rate(inward)));
  };
  const label = (id) => { const { node } = place.get(id); return `${WORDS[node.kind]} ${node.label}`; };
  const rows = edges.map((edge) => [`${edge.from} ${edge.to}`, [label(edge.from), label(edge.to), rate(edge.requestsPerSecond), rate(edge.errorsPerSecond)]]);
  return [
    s("svg", { class: "graph", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": "Service topology; the same is in the table below" },
      edges.map(line), [...place.values()].map(box)),
    hidden ? h("p", { class: "hint" }, `${hidden} quieter connections are not shown.`) : null,
    h("details", {}, h("summary", {}, "The same as a table"), table("Connections, the busiest first", ["From", "To", "Requests#", "Errors or refused#"], rows)),
  ].filter(Boolean);
}
