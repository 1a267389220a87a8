// Asks the API once an interval and shows what it says.

import { h, patchChildren } from "/dom.js";
import { graph } from "/graph.js";
import * as sections from "/sections.js";

const byId = (id) => document.getElementById(id);
const PARTS = ["canaries", "egress", "limits", "routes", "refusals", "proxies"];

// The token stays in this tab.
let token = sessionStorage.getItem("token");
let cluster = decodeURIComponent(location.hash.slice(1)) || null;
let paused = false;
let interval = 1000;
let last = null;
let announced = "";

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(path) {
  const response = await fetch(path, { headers: token ? { authorization: `Bearer ${token}` } : {} });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, answer.error ?? `The dash answered ${response.status}.`);
  return answer;
}

function choose(name) {
  cluster = name;
  location.hash = encodeURIComponent(name);
  look();
}

function showClusters(clusters) {
  const word = (one) => {
    const dead = one.endpoints - one.alive;
    const wrong = one.errors ? `${one.errors} wrong` : one.warnings ? `${one.warnings} to look at` : "fine";
    return `${one.name} · ${one.endpoints === 1 ? "1 proxy" : `${one.endpoints} proxies`}${dead ? `, ${dead} down` : ""} · ${wrong}`;
  };
  patchChildren(byId("clusters"), [h("ul", {}, clusters.map((one) => h("li", { "data-key": one.name },
    h("button", { type: "button", "aria-current": one.name === cluster ? "true" : null, onclick: () => choose(one.name) }, word(one)))))]);
}

function show(snapshot) {
  last = snapshot;
  const again = () => show(last);
  patchChildren(byId("problems-body"), sections.problems(snapshot));
  patchChildren(byId("topology-body"), graph(snapshot.topology));
  for (const part of PARTS) patchChildren(byId(part).lastElementChild, sections[part](snapshot, again));
  const worst = snapshot.problems.filter((problem) => problem.severity === "error").map((problem) => `${problem.kind} ${problem.rule}`).join();
  if (worst !== announced) {
    announced = worst;
    byId("announce").textContent = snapshot.problems.filter((problem) => problem.severity === "error").map((problem) => problem.text).join(". ") || "Nothing is wrong any more.";
  }
  byId("page").hidden = false;
  byId("login").hidden = true;
  document.title = `${snapshot.problems.some((problem) => problem.severity === "error") ? "⚠ " : ""}${snapshot.cluster} – Penstock dash`;
}

const state = (text) => { byId("state").textContent = text; };

function failed(error) {
  if (error.status === 401) {
    byId("page").hidden = true;
    byId("login").hidden = false;
    if (token) byId("login-why").textContent = "Nobody has this token. Give the token of your workspace.";
    state("not signed in");
  } else if (error.status === 403) {
    byId("page").hidden = true;
    state(error.message);
  } else {
    state(error.status ? error.message : "the dash does not answer; what you see is old");
  }
}

async function look() {
  try {
    const [me, { clusters }] = await Promise.all([ask("/api/v1/me"), ask("/api/v1/clusters")]);
    interval = 1000 * me.intervalSeconds;
    byId("who").textContent = `${me.workspace ? `Workspace ${me.workspace}` : "Everything on this machine's dash"} · version ${me.version}`;
    cluster ??= clusters[0]?.name;
    showClusters(clusters);
    if (!cluster) return state("your workspace has no clusters here");
    show(await ask(`/api/v1/clusters/${encodeURIComponent(cluster)}`));
    state(paused ? "paused" : "live");
  } catch (error) {
    failed(error);
  }
}

async function go() {
  if (!paused && !document.hidden) await look();
  setTimeout(go, interval);
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
  state(paused ? "paused" : "live");
});
byId("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  sessionStorage.setItem("token", token);
  byId("token").value = "";
  look();
});
addEventListener("hashchange", () => {
  const name = decodeURIComponent(location.hash.slice(1));
  if (name && name !== cluster) { cluster = name; look(); }
});
go();
