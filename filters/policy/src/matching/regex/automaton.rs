//! Expressions as one deterministic automaton: a table of states by classes of bytes, and one step a byte whatever the
//! value is.
//!
//! The automaton is made when the policy loads (by `regex-automata`), within a limit: what would need more states is
//! refused. So nothing has to be built, cached or aborted while a request waits. Up to 64 expressions on the same field
//! share an automaton, and one pass evaluates them all.

use std::sync::Arc;

use std::collections::VecDeque;

use hashbrown::HashMap;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::{Hir, HirKind, Look};
use rustc_hash::FxBuildHasher;

/// The maximum number of expressions that share an automaton: each has one bit.
pub(super) const MOST_TOGETHER: usize = 64;

/// The state from which no expression can match any more.
const DEAD: u16 = 0;

/// The form of an expression, in addition to the part from which the automaton is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum ExpressionShape {
    /// The whole value matches.
    Whole,
    /// `.*x.*`: some part of the value matches, and the whole is UTF-8 in one line. Found in one pass without a state for
    /// each combination of what has been found already.
    PartOfLine,
    /// The same with `(?s)`: the value may have several lines.
    PartOfText,
    /// Some part of the value matches, whatever the others are.
    PartOfBytes,
}

/// An expression as an automaton is made of it.
#[derive(Clone, Debug)]
pub(super) struct ExpressionSource {
    pub(super) shape: ExpressionShape,
    pub(super) hir: Hir,
}

impl ExpressionSource {
    /// Finds the shape of an expression.
    pub(super) fn new(hir: Hir) -> ExpressionSource {
        let hir = without_anchors(hir);
        match part(&hir) {
            Some((shape, hir)) => ExpressionSource { shape, hir },
            None => ExpressionSource { shape: ExpressionShape::Whole, hir },
        }
    }
}

/// The expression without a `^` at its beginning and a `$` at its end, which say nothing where the whole value must
/// match.
fn without_anchors(hir: Hir) -> Hir {
    let HirKind::Concat(parts) = hir.kind() else { return hir };
    let is = |part: Option<&Hir>, look| part.is_some_and(|part| *part.kind() == HirKind::Look(look));
    let (begin, end) = (is(parts.first(), Look::Start), is(parts.last(), Look::End));
    if !begin && !end {
        return hir;
    }
    let parts = parts.iter().skip(usize::from(begin)).take(parts.len() - usize::from(begin) - usize::from(end));
    Hir::concat(parts.cloned().collect())
}

/// What is between `.*` and `.*`.
fn part(hir: &Hir) -> Option<(ExpressionShape, Hir)> {
    match hir.kind() {
        HirKind::Concat(parts) => {
            let [first, between @ .., last] = parts.as_slice() else { return None };
            let shape = anything(first).filter(|shape| anything(last) == Some(*shape))?;
            let inner = Hir::concat(between.to_vec());
            let properties = inner.properties();
            let is_text = properties.is_utf8() && properties.minimum_len().is_some_and(|least| least > 0);
            (is_text && (shape == ExpressionShape::PartOfText || !may_have_newline(&inner))).then_some((shape, inner))
        }
        HirKind::Alternation(branches) => {
            let branches: Option<Vec<(ExpressionShape, Hir)>> = branches.iter().map(part).collect();
            let (shapes, branches): (Vec<_>, Vec<_>) = branches?.into_iter().unzip();
            let shape = *shapes.first()?;
            shapes.iter().all(|other| *other == shape).then(|| (shape, Hir::alternation(branches)))
        }
        _ => None,
    }
}

/// Whether `hir` is `.*`, and of which kind.
fn anything(hir: &Hir) -> Option<ExpressionShape> {
    let HirKind::Repetition(repetition) = hir.kind() else { return None };
    if repetition.min != 0 || repetition.max.is_some() {
        return None;
    }
    if *repetition.sub == Hir::dot(regex_syntax::hir::Dot::AnyChar) {
        Some(ExpressionShape::PartOfText)
    } else if *repetition.sub == Hir::dot(regex_syntax::hir::Dot::AnyCharExceptLF) {
        Some(ExpressionShape::PartOfLine)
    } else {
        None
    }
}

/// Whether a text that `hir` matches may have a line feed. Groups are nested no deeper than the parser allows.
fn may_have_newline(hir: &Hir) -> bool {
    use regex_syntax::hir::Class;
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.contains(&b'\n'),
        HirKind::Class(Class::Unicode(class)) => class.iter().any(|r| r.start() <= '\n' && '\n' <= r.end()),
        HirKind::Class(Class::Bytes(class)) => class.iter().any(|r| r.start() <= b'\n' && b'\n' <= r.end()),
        HirKind::Repetition(repetition) => may_have_newline(&repetition.sub),
        HirKind::Capture(capture) => may_have_newline(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(may_have_newline),
    }
}

/// Which expressions, by their bits.
pub(super) type Mask = u64;

/// The most bytes that making an automaton may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct AutomatonLimits {
    /// The limit for the library's table; ours is then at most a third as large.
    pub(super) table: usize,
    /// The limit for the sets of positions that the states represent, which grow when expressions need many states.
    pub(super) combinations: usize,
}

/// The error when an automaton would take more memory than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// The automaton.
#[derive(Debug)]
pub(super) struct Automaton {
    shape: ExpressionShape,
    /// No expression distinguishes the bytes of one class.
    classes: Box<[u8; 256]>,
    /// How many classes there are.
    columns: usize,
    /// The next state by state and class, row by row.
    table: Box<[u16]>,
    start: u16,
    /// From this state on, reaching the state is a match; see `reached`.
    first_match: u16,
    /// What has matched when the states from `first_match` on are reached.
    reached: Box<[Mask]>,
    /// What matches when the value ends in the state: a position in `masks`.
    ends: Box<[u16]>,
    masks: Box<[Mask]>,
}

impl Automaton {
    /// An automaton that matches nothing.
    pub(super) fn nothing() -> Automaton {
        Automaton {
            shape: ExpressionShape::Whole,
            classes: Box::new([0; 256]),
            columns: 1,
            table: Box::new([DEAD]),
            start: DEAD,
            first_match: 1,
            reached: Box::default(),
            ends: Box::new([0]),
            masks: Box::new([0]),
        }
    }

    /// Makes the automaton for `expressions`, all of the same shape; the first has the lowest bit.
    pub(super) fn new(
        shape: ExpressionShape,
        expressions: &[&Hir],
        limits: AutomatonLimits,
    ) -> Result<Automaton, TooLarge> {
        if expressions.len() > MOST_TOGETHER {
            return Err(TooLarge);
        }
        let whole = shape == ExpressionShape::Whole;
        // With the end in the expression only the end of the value matches: no states for matches on the way.
        let ended = |hir: &Hir| Hir::concat(vec![hir.clone(), Hir::look(Look::End)]);
        let sources: Vec<Hir> =
            expressions.iter().map(|hir| if whole { ended(hir) } else { Hir::clone(hir) }).collect();
        let config = thompson::Config::new()
            .utf8(false)
            .which_captures(thompson::WhichCaptures::None)
            .nfa_size_limit(Some(limits.combinations));
        let nfa = thompson::Compiler::new().configure(config).build_many_from_hir(&sources).map_err(|_| TooLarge)?;
        let (kind, anchored) =
            if whole { (StartKind::Anchored, Anchored::Yes) } else { (StartKind::Unanchored, Anchored::No) };
        let config = dense::Config::new()
            .match_kind(MatchKind::All)
            .start_kind(kind)
            .accelerate(false)
            .dfa_size_limit(Some(limits.table))
            .determinize_size_limit(Some(limits.combinations));
        let dfa = dense::Builder::new().configure(config).build_from_nfa(&nfa).map_err(|_| TooLarge)?;
        let begin = dfa.start_state(&start::Config::new().anchored(anchored)).map_err(|_| TooLarge)?;
        Automaton::of_dfa(shape, &dfa, begin)
    }

    /// Copies what can be reached from `begin` into a table without gaps.
    fn of_dfa(shape: ExpressionShape, dfa: &dense::DFA<Vec<u32>>, begin: StateID) -> Result<Automaton, TooLarge> {
        let mask = |state: StateID| -> Mask {
            if !dfa.is_match_state(state) {
                return 0;
            }
            (0..dfa.match_len(state)).fold(0, |mask, i| mask | 1 << dfa.match_pattern(state, i).as_usize())
        };
        let representatives: Vec<u8> =
            dfa.byte_classes().representatives(0..=255).filter_map(|unit| unit.as_u8()).collect();
        let columns = representatives.len();
        let mut numbers: HashMap<StateID, usize, FxBuildHasher> = HashMap::default();
        // State 0 is the dead state, whatever its number in the library's table.
        let mut states: Vec<Option<StateID>> = vec![None];
        let mut queue = VecDeque::new();
        let mut number = |state: StateID, states: &mut Vec<Option<StateID>>, queue: &mut VecDeque<StateID>| {
            if dfa.is_dead_state(state) {
                return usize::from(DEAD);
            }
            *numbers.entry(state).or_insert_with(|| {
                states.push(Some(state));
                queue.push_back(state);
                states.len() - 1
            })
        };
        number(begin, &mut states, &mut queue);
        let mut rows: Vec<usize> = vec![usize::from(DEAD); columns];
        while let Some(state) = queue.pop_front() {
            for &byte in &representatives {
                rows.push(number(dfa.next_state(state, byte), &mut states, &mut queue));
            }
        }
        // States that report a match come last, so that one comparison recognises them.
        let reports: Vec<Mask> = states.iter().map(|state| state.map_or(0, &mask)).collect();
        let is_match =
            |state: &usize| shape != ExpressionShape::Whole && reports.get(*state).is_some_and(|mask| *mask != 0);
        let (matching, others): (Vec<usize>, Vec<usize>) = (0..states.len()).partition(is_match);
        let first_match = u16::try_from(others.len()).map_err(|_| TooLarge)?;
        let order: Vec<usize> = others.into_iter().chain(matching.iter().copied()).collect();
        let mut renamed = vec![DEAD; states.len()];
        for (new, &old) in order.iter().enumerate() {
            if let Some(name) = renamed.get_mut(old) {
                *name = u16::try_from(new).map_err(|_| TooLarge)?;
            }
        }
        let name = |old: usize| renamed.get(old).copied().unwrap_or(DEAD);
        let mut masks: Vec<Mask> = vec![0];
        let mut ends = Vec::with_capacity(order.len());
        for state in order.iter().map(|&old| states.get(old).copied().flatten()) {
            let end = state.map_or(0, |state| mask(dfa.next_eoi_state(state)));
            let place = masks.iter().position(|mask| *mask == end).unwrap_or_else(|| {
                masks.push(end);
                masks.len() - 1
            });
            ends.push(u16::try_from(place).map_err(|_| TooLarge)?);
        }
        let row = |old: &usize| rows.get(old * columns..(old + 1) * columns).unwrap_or_default();
        let mut classes = Box::new([0; 256]);
        for (byte, class) in (0..=255).zip(classes.iter_mut()) {
            *class = dfa.byte_classes().get(byte);
        }
        Ok(Automaton {
            shape,
            classes,
            columns,
            table: order.iter().flat_map(row).map(|old| name(*old)).collect(),
            start: name(1),
            first_match,
            reached: matching.iter().filter_map(|old| reports.get(*old).copied()).collect(),
            ends: ends.into(),
            masks: masks.into(),
        })
    }

    /// The bytes of memory that it takes.
    pub(super) fn size(&self) -> usize {
        size_of_val(&*self.table)
            + size_of_val(&*self.classes)
            + size_of_val(&*self.ends)
            + size_of_val(&*self.masks)
            + size_of_val(&*self.reached)
    }

    /// Which of the expressions match `value`.
    pub(super) fn matching(&self, value: &[u8]) -> Mask {
        let may_match = match self.shape {
            ExpressionShape::Whole | ExpressionShape::PartOfBytes => true,
            ExpressionShape::PartOfLine => memchr::memchr(b'\n', value).is_none() && std::str::from_utf8(value).is_ok(),
            ExpressionShape::PartOfText => std::str::from_utf8(value).is_ok(),
        };
        if may_match { self.run(value) } else { 0 }
    }

    fn run(&self, value: &[u8]) -> Mask {
        let mut state = self.start;
        let mut found = 0;
        for &byte in value {
            let class = self.classes.get(usize::from(byte)).copied().unwrap_or(0);
            state = self.table.get(usize::from(state) * self.columns + usize::from(class)).copied().unwrap_or(DEAD);
            if state == DEAD {
                return found;
            }
            if state >= self.first_match {
                found |= self.reached.get(usize::from(state - self.first_match)).copied().unwrap_or(0);
            }
        }
        let end = self.ends.get(usize::from(state)).copied().unwrap_or(0);
        found | self.masks.get(usize::from(end)).copied().unwrap_or(0)
    }
}

/// Where an expression's automaton is.
#[derive(Clone, Debug)]
pub(super) struct AutomatonPlace {
    pub(super) automaton: Arc<Automaton>,
    pub(super) bit: u32,
    /// The automaton's number in its policy; `None`: the expression stands alone, outside of a policy.
    pub(super) number: Option<u32>,
}
