//! Runs tests and compares decisions with expectations.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use penstock_policy::document::Node;
use penstock_policy::wire::World;
use penstock_policy::{Policy, Timestamp};
use serde::Serialize;
use serde_json::Value;

use super::file::{Expected, PolicySource, Test, TestStep};
use crate::coverage::{Coverage, FileCoverage};
use crate::policy_file::{Invalid, PolicyFile};
use crate::{lint, source, traffic};

/// The result of one test.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestOutcome {
    /// The file of the test.
    pub file: String,
    /// Its name.
    pub name: String,
    /// The line where it starts, from 1.
    pub line: usize,
    /// Whether everything was as expected.
    pub passed: bool,
    /// The differences, of at most one step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// The number of the failed step, from 1; the number of steps; and the failed request among its repetitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<(usize, usize)>,
    /// The request that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Why the policy could not be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The duration in seconds.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub took: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// A key with an unexpected value.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// The expected value; `null` when the key must be absent.
    pub expected: Value,
    /// The actual value; `null` when the key is absent.
    pub actual: Value,
    /// The line of the expected value.
    pub line: usize,
    /// The column of the expected value.
    pub column: usize,
}

/// Loads each policy once.
#[derive(Debug, Default)]
pub struct TestJudge {
    /// Whether coverage is recorded.
    covers: bool,
    files: HashMap<PathBuf, Rc<Loaded>>,
    /// Policies inside test files, by file and text, when coverage is recorded.
    written: BTreeMap<(PathBuf, String), Rc<Loaded>>,
    /// The policy of the previous test, when it was inside the test file.
    inline: Option<Rc<Loaded>>,
}

/// A policy, or why it could not be loaded.
#[derive(Debug)]
struct Loaded {
    node: Rc<Node>,
    error: Option<String>,
    /// Each test has its own state, but breakers are part of a policy, so only a policy without breakers is shared
    /// between tests.
    shared: OnceCell<Option<Policy>>,
    coverage: Option<RefCell<Coverage>>,
}

impl Loaded {
    fn new(node: Rc<Node>) -> Loaded {
        Loaded { node, error: None, shared: OnceCell::new(), coverage: None }
    }

    /// The policy with recorded coverage, when it is valid.
    fn covered(node: Rc<Node>) -> Loaded {
        let is_valid = Policy::from_node(&node).is_ok_and(|_: Policy| true);
        let coverage = is_valid.then(|| RefCell::new(Coverage::new(&node)));
        Loaded { coverage, ..Loaded::new(node) }
    }

    /// The policy, when it is valid and keeps no state between tests.
    fn shared(&self) -> Option<&Policy> {
        let compile = || Policy::from_node(&self.node).ok().filter(|policy: &Policy| policy.breakers().is_empty());
        self.shared.get_or_init(compile).as_ref()
    }
}

impl TestJudge {
    /// Records coverage, or not.
    pub fn new(covers: bool) -> TestJudge {
        TestJudge { covers, ..TestJudge::default() }
    }

    /// Runs one test of the file `path`.
    ///
    /// # Errors
    /// Returns an error when the policy's file cannot be read.
    pub fn run(&mut self, path: &Path, test: &Test, now: Timestamp) -> anyhow::Result<TestOutcome> {
        let begun = Instant::now();
        let mut outcome = TestOutcome {
            file: source::display(path),
            name: test.name.clone(),
            line: test.line,
            passed: false,
            differences: Vec::new(),
            step: None,
            request: None,
            error: None,
            took: Duration::ZERO,
        };
        let loaded = match &test.policy {
            PolicySource::Inline(node) => match self.inline.take().filter(|loaded| Rc::ptr_eq(&loaded.node, node)) {
                Some(loaded) => loaded,
                None if self.covers => {
                    let known = self.written.entry((path.to_owned(), node.to_string()));
                    known.or_insert_with(|| Rc::new(Loaded::covered(node.clone()))).clone()
                }
                None => Rc::new(Loaded::new(node.clone())),
            },
            PolicySource::File(name) => {
                let file = plain(&path.parent().unwrap_or(Path::new("")).join(name));
                self.load(&file).with_context(|| format!("{}: `policy: {name}`", source::display(path)))?
            }
        };
        match &loaded.error {
            Some(error) => outcome.error = Some(error.clone()),
            None => judge(&loaded, test, now, &mut outcome),
        }
        if let PolicySource::Inline(_) = &test.policy {
            self.inline = Some(loaded);
        }
        outcome.passed = outcome.error.is_none() && outcome.differences.is_empty();
        outcome.took = begun.elapsed();
        Ok(outcome)
    }

    /// Coverage for each policy in a file of its own, in order, then for those inside test files.
    pub fn coverage(&self) -> Vec<FileCoverage> {
        let mut paths: Vec<(&PathBuf, &Rc<Loaded>)> = self.files.iter().collect();
        paths.sort_by_key(|(path, _)| *path);
        let file = |(path, loaded): (&PathBuf, &Rc<Loaded>)| {
            let text = source::read_text(path).unwrap_or_default();
            Some(FileCoverage::new(source::display(path), &text, loaded.coverage.as_ref()?.borrow().items()))
        };
        let written = |((path, _), loaded): (&(PathBuf, String), &Rc<Loaded>)| {
            let coverage = loaded.coverage.as_ref()?.borrow();
            let text = source::read_text(path).unwrap_or_default();
            Some(FileCoverage::in_tests(source::display(path), &text, &loaded.node, coverage.items()))
        };
        paths.into_iter().filter_map(file).chain(self.written.iter().filter_map(written)).collect()
    }

    fn load(&mut self, path: &Path) -> anyhow::Result<Rc<Loaded>> {
        if let Some(loaded) = self.files.get(path) {
            return Ok(loaded.clone());
        }
        let loaded = Rc::new(match PolicyFile::load(path) {
            Ok(file) => {
                let coverage = self.covers.then(|| RefCell::new(Coverage::new(&file.node)));
                Loaded { coverage, ..Loaded::new(Rc::new(file.node)) }
            }
            Err(error) => match error.downcast::<Invalid>() {
                Ok(invalid) => Loaded { error: Some(invalid.to_string()), ..Loaded::new(Rc::new(Node::Null)) },
                Err(error) => return Err(error),
            },
        });
        self.files.insert(path.to_owned(), loaded.clone());
        Ok(loaded)
    }
}

/// The path without `.`, and without `..` after a folder, so that each file has one name.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match (part, plain.components().next_back()) {
            (Component::CurDir, _) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => drop(plain.pop()),
            (part, _) => plain.push(part),
        }
    }
    plain
}

fn judge(loaded: &Loaded, test: &Test, now: Timestamp, outcome: &mut TestOutcome) {
    if let (Some(policy), true) = (loaded.shared(), test.load.is_empty()) {
        return judge_steps(policy, loaded.coverage.as_ref(), test, now, outcome);
    }
    let node = &loaded.node;
    let policy = Policy::from_node(node);
    if !test.load.is_empty() {
        let warns = policy.as_ref().is_ok_and(|policy: &Policy| {
            !policy.warnings().is_empty()
                || !lint::routing(node).is_empty()
                || !lint::egress(node, test.time.unwrap_or(now)).is_empty()
                || !lint::metrics(node).is_empty()
        });
        let found = serde_json::json!({"valid": policy.is_ok(), "warns": warns});
        outcome.differences = differences(&test.load, &found);
        return;
    }
    match policy {
        Ok(policy) => judge_steps(&policy, loaded.coverage.as_ref(), test, now, outcome),
        Err(problems) => {
            // The decision as `penstock replay` prints it.
            let found = serde_json::json!({"policyError": problems.to_string()});
            match test.steps.first().filter(|step| step.expect.iter().any(|expected| expected.key == "policyError")) {
                Some(step) => outcome.differences = differences(&step.expect, &found),
                None => outcome.error = Some(problems.to_string()),
            }
        }
    }
}

fn judge_steps(
    policy: &Policy,
    coverage: Option<&RefCell<Coverage>>,
    test: &Test,
    now: Timestamp,
    outcome: &mut TestOutcome,
) {
    let mut world = World::new(test.time.unwrap_or(now), test.seed);
    for (number, step) in (1..).zip(&test.steps) {
        world.now.0 = world.now.0.saturating_add(u64::try_from(step.after.as_nanos()).unwrap_or(u64::MAX));
        if let Some((time, differences)) = judge_step(step, policy, coverage, &mut world) {
            outcome.differences = differences;
            outcome.request = Some(traffic::line(&step.request));
            outcome.step = (test.steps.len() > 1 || step.times > 1).then_some((number, time));
            return;
        }
    }
}

/// The first failing request of the step, and its differences.
fn judge_step(
    step: &TestStep,
    policy: &Policy,
    coverage: Option<&RefCell<Coverage>>,
    world: &mut World,
) -> Option<(usize, Vec<Difference>)> {
    (1..=step.times as usize).find_map(|time| {
        let decision = match coverage {
            None => step.request.decide(policy, world),
            Some(coverage) => {
                let (decision, trace) = step.request.explain(policy, world);
                coverage.borrow_mut().observe(&step.request, &decision, &trace);
                decision
            }
        };
        let decision = serde_json::to_value(decision).unwrap_or_default();
        let differences = differences(&step.expect, &decision);
        (!differences.is_empty()).then_some((time, differences))
    })
}

/// Every given key must be equal; for `null`, the key must be absent.
fn differences(expected: &[Expected], decision: &Value) -> Vec<Difference> {
    let different = |expected: &&Expected| decision.get(&expected.key).unwrap_or(&Value::Null) != &expected.value;
    let difference = |expected: &Expected| Difference {
        key: expected.key.clone(),
        expected: expected.value.clone(),
        actual: decision.get(&expected.key).cloned().unwrap_or_default(),
        line: expected.place.0,
        column: expected.place.1,
    };
    expected.iter().filter(different).map(difference).collect()
}
