// The sections of the page, each from its part of a snapshot.

import { ago, bar, h, mark, number, percent, rate, spark, table } from "/dom.js";

const WORDS = { error: "Wrong", warning: "Look", info: "Note" };

/** What is wrong now. */
export function problems({ problems, at, endpoints }) {
  if (!problems.length) {
    const text = endpoints.some((endpoint) => endpoint.alive) ? "Nothing that the dash can see." : "No proxy has answered yet.";
    return [h("p", { class: "fine" }, text)];
  }
  return [h("ul", { class: "problems" }, problems.map((problem) =>
    h("li", { class: problem.severity, "data-key": `${problem.kind} ${problem.rule}` },
      h("b", {}, WORDS[problem.severity]), h("span", {}, problem.text),
      problem.last ? h("time", {}, ago(problem.last, at)) : null)))];
}

function breaker(state) {
  if (!state) return null;
  const on = (count) => (state.proxies > 1 ? ` on ${count} of ${state.proxies}` : "");
  if (state.open) return mark("bad", `out of rotation${on(state.open)}`);
  if (state.halfOpen) return mark("warn", `on probation${on(state.halfOpen)}`);
  return mark("good", "in rotation");
}

const time = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 16).replace("T", " ");

/** Canaries: shares wanted and observed, ramp, breakers. */
export function canaries({ canaries }) {
  if (!canaries.length) return [none("canaries")];
  return canaries.map((canary) => {
    const rows = canary.variants.map((variant) => {
      const failing = variant.breaker?.open > 0;
      return [variant.name, [
        variant.name, number(variant.weight), percent(variant.wanted),
        [bar(variant.observed, failing ? "bad" : "accent", variant.wanted), ` ${percent(variant.observed)}`],
        rate(variant.rate.perSecond), spark(variant.rate.history, failing),
        variant.errorsPerSecond === null ? "–" : rate(variant.errorsPerSecond), breaker(variant.breaker) ?? mark("plain", "not watched"),
      ]];
    });
    return h("div", { class: "canary", "data-key": canary.name },
      h("div", { class: "canary-head" }, h("h3", {}, canary.name),
        mark("plain", canary.stickiness ? `sticky by ${canary.stickiness}` : "each request anew")),
      table(`Variants of ${canary.name}`, ["Variant", "Weight#", "Wanted#", "Observed", "Requests#", "Last minutes", "5xx#", "Breaker"], rows),
      canary.ramp ? h("ol", { class: "ramp", "aria-label": `Ramp of ${canary.ramp.variant}` }, canary.ramp.steps.map((step) =>
        h("li", { class: step.reached ? "reached" : null }, `${step.weight} % from ${time(step.at)} UTC${step.reached ? ", reached" : ""}`))) : null);
  });
}

const none = (what) => h("p", { class: "none" }, `No ${what} are known here.`);

const zero = { total: 0, perSecond: 0, history: [] };

// Long lists: the busiest fifty, unless the user looks for something.
const SHOWN = 50;
const filters = new Map();

function listing(id, caption, heads, entries, cells, again) {
  const { text = "", all = false } = filters.get(id) ?? {};
  const set = (change) => { filters.set(id, { text, all, ...filters.get(id), ...change }); again(); };
  const found = entries.filter((entry) => `${entry.name} ${entry.owner ?? ""}`.toLowerCase().includes(text.toLowerCase()));
  const busy = (entry) => Object.values(entry.outcomes).reduce((sum, outcome) => sum + outcome.perSecond, 0);
  const sorted = found.map((entry) => [busy(entry), entry]).sort(([a, x], [b, y]) => b - a || (x.name < y.name ? -1 : 1));
  const shown = all ? sorted : sorted.slice(0, SHOWN);
  const parts = [];
  if (entries.length > SHOWN) {
    parts.push(h("div", { class: "filter" },
      h("label", { for: `${id}-filter` }, "Find"),
      h("input", { id: `${id}-filter`, type: "search", oninput: (event) => set({ text: event.target.value }) }),
      h("span", {}, `${shown.length} of ${found.length}, the busiest first`),
      h("button", { type: "button", "aria-pressed": String(all), onclick: () => set({ all: !filters.get(id)?.all }) }, all ? "Show fewer" : "Show all")));
  }
  parts.push(table(caption, heads, shown.map(([, entry]) => [entry.name, cells(entry)])));
  return parts;
}

/** Egress rules with owner, expiry and decisions. */
export function egress({ egress, at }, again) {
  if (!egress.length) return [none("egress rules")];
  const expiry = (rule) => {
    if (rule.expiresInDays === null) return rule.expires ?? "–";
    if (rule.expiresInDays < 0) return mark("bad", `expired ${rule.expires.slice(0, 10)}`);
    return mark(rule.expiresInDays < 14 ? "warn" : "plain", `in ${number(rule.expiresInDays)} days`);
  };
  const cells = (rule) => {
    const { allowed = zero, denied = zero, audited = zero } = rule.outcomes;
    const refused = denied.perSecond + audited.perSecond;
    return [
      rule.name, rule.owner ?? "–", rule.to.slice(0, 3).join(", ") + (rule.to.length > 3 ? ` and ${rule.to.length - 3} more` : "") || "–",
      rule.reason ?? "–", expiry(rule), rate(allowed.perSecond), spark(allowed.history),
      refused > 0 ? mark(denied.perSecond > 0 ? "bad" : "warn", `${rate(refused)}${denied.perSecond > 0 ? "" : " audited"}`) : "0/s", ago(rule.lastRefused, at),
    ];
  };
  const heads = ["Rule", "Owner", "Hosts", "Why", "Ends", "Allowed#", "Last minutes", "Refused#", "Last refused"];
  return listing("egress", egress[0].mode === "Audit" ? "Audit: what no rule allows passes and is reported" : "Rules", heads, egress, cells, again);
}

/** Rate limits with their fill. */
export function limits({ rateLimits }, again) {
  if (!rateLimits.length) return [none("rate limits")];
  const cells = (limit) => {
    const { passed = zero, limited = zero, wouldLimit = zero } = limit.outcomes;
    const fill = limit.capacity ? limit.used / limit.capacity : null;
    const refused = limited.perSecond + wouldLimit.perSecond;
    return [
      limit.name, limit.limit ?? "–", limit.scope === "global" ? "global" : "each proxy", rate(passed.perSecond), spark(passed.history),
      refused > 0 ? mark(limited.perSecond > 0 ? "bad" : "warn", limited.perSecond > 0 ? rate(refused) : `${rate(refused)} would be`) : "0/s", spark(limited.history, true),
      fill === null ? "–" : [bar(fill, fill > 0.5 ? "warn" : "good"), ` ${number(limit.used)} of ${number(limit.capacity)} keys`],
    ];
  };
  return listing("limits", "Limits", ["Limit", "Allows", "Scope", "Passed#", "Last minutes", "Refused#", "Refused lately", "Table"], rateLimits, cells, again);
}

/** Routes. */
export function routes({ routes }, again) {
  if (!routes.length) return [none("routes")];
  const cells = (route) => {
    const matched = route.outcomes.matched ?? zero;
    return [route.name === "_default" ? "(no rule: the default)" : route.name, route.route ?? "–", rate(matched.perSecond), spark(matched.history), number(matched.total), breaker(route.breaker) ?? "–"];
  };
  return listing("routes", "Rules", ["Rule", "Route", "Requests#", "Last minutes", "In all#", "Breaker"], routes, cells, again);
}

/** What refused lately. */
export function refusals({ refusals, at }) {
  if (!refusals.length) return [h("p", { class: "none" }, "Nothing was refused since the dash runs.")];
  const section = { egress: "egress rule", egressReasons: "egress reason", rateLimits: "rate limit", host: "host" };
  const rows = refusals.map((one) => [`${one.section} ${one.rule} ${one.outcome}`,
    [one.rule, section[one.section], one.outcome, one.owner ?? "–", rate(one.perSecond), number(one.total), ago(one.last, at)]]);
  return [table("The newest first", ["Rule or reason", "Of", "Outcome", "Owner", "Now#", "In all#", "Last"], rows)];
}

/** Proxies, and which policy each runs. */
export function proxies({ endpoints, drift, at }) {
  const drifts = drift.filter((one) => Object.keys(one.texts).length > 1);
  const rows = endpoints.map((endpoint) => [endpoint.name, [
    endpoint.name, endpoint.alive ? mark("good", "answers") : mark("bad", endpoint.error ? "down" : "not asked yet"), endpoint.namespace ?? "–",
    endpoint.version ?? "–", ago(endpoint.lastSeen, at),
    endpoint.error ?? h("div", {}, endpoint.plugins.map((plugin) => h("div", { "data-key": plugin.name },
      `${plugin.name} `, h("code", {}, plugin.hash), ` change ${plugin.generation ?? "?"}, loaded ${ago(plugin.loaded, at)}`))),
  ]]);
  return [
    h("p", { class: drifts.length ? "hint" : "fine" }, drifts.length
      ? `Drift: ${drifts.map((one) => `${one.plugin} runs ${Object.keys(one.texts).length} different texts`).join("; ")}.`
      : "No drift: every plugin runs the same policy on all proxies that answer."),
    table("Proxies", ["Proxy", "State", "Namespace", "Envoy", "Seen", "Policies"], rows),
  ];
}
