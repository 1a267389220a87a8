//! Parses RE2's syntax into the intermediate representation of `regex-syntax`.
//!
//! The parser of `regex-syntax` reads another language: `\<` is a word boundary there, `[a&&b]` an intersection, `a**`
//! a repetition. What RE2 accepts has the same meaning here, and what RE2 refuses is refused. Only classes by Unicode
//! property (`\pL`) are not supported, because their tables are larger than the rest of a module.

use regex_syntax::hir::{
    Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Dot, Hir, Look, Repetition,
};

use super::error::BadRegex;

/// Expressions are no longer than this, in bytes.
const LONGEST: usize = 64 << 10;

/// Groups are nested no deeper than this.
const DEEPEST: usize = 200;

/// Counted repetitions repeat no more often than this, nested ones together.
const MOST_REPEATS: u32 = 1000;

/// Reads an expression.
///
/// # Errors
/// When RE2 refuses it, or it has what only RE2 has.
pub(super) fn parse(pattern: &str) -> Result<Hir, BadRegex> {
    if pattern.len() > LONGEST {
        let help = "use type In for a list of values, or several entries of `matches`";
        return Err(BadRegex::limit(format!("is longer than {} KiB", LONGEST >> 10), help));
    }
    let mut parser =
        Parser { rest: pattern, flags: Flags::default(), items: Vec::new(), branches: Vec::new(), outer: Vec::new() };
    parser.run()?;
    Ok(parser.finish()?.hir)
}

/// What `(?ims)` sets.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    fold_case: bool,
    multi_line: bool,
    dot_newline: bool,
}

/// A piece of an expression.
struct SyntaxItem {
    hir: Hir,
    /// How often counted repetitions in it repeat, nested ones multiplied.
    repeats: u32,
}

impl SyntaxItem {
    fn new(hir: Hir) -> SyntaxItem {
        SyntaxItem { hir, repeats: 1 }
    }

    fn joined(items: Vec<SyntaxItem>, join: impl FnOnce(Vec<Hir>) -> Hir) -> SyntaxItem {
        let repeats = items.iter().map(|item| item.repeats).max().unwrap_or(1);
        SyntaxItem { hir: join(items.into_iter().map(|item| item.hir).collect()), repeats }
    }
}

/// What surrounds a group.
struct Outer {
    flags: Flags,
    items: Vec<SyntaxItem>,
    branches: Vec<SyntaxItem>,
}

struct Parser<'p> {
    rest: &'p str,
    flags: Flags,
    /// The pieces of the branch that is being read.
    items: Vec<SyntaxItem>,
    /// The branches of the group before that one.
    branches: Vec<SyntaxItem>,
    /// The groups around this one.
    outer: Vec<Outer>,
}

impl<'p> Parser<'p> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next();
        self.rest = chars.as_str();
        next
    }

    /// Consumes `text` if it comes next.
    fn take(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// What was read since `before` was the rest.
    fn since(&self, before: &'p str) -> &'p str {
        before.get(..before.len() - self.rest.len()).unwrap_or(before)
    }

    fn push(&mut self, hir: Hir) {
        self.items.push(SyntaxItem::new(hir));
    }

    fn run(&mut self) -> Result<(), BadRegex> {
        // The repetition operator that ended just here.
        let mut repeated: Option<&'p str> = None;
        while let Some(c) = self.peek() {
            let before = self.rest;
            let mut operator = None;
            match c {
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.next();
                    self.end_branch();
                }
                '^' | '$' => {
                    self.next();
                    let look = match (c, self.flags.multi_line) {
                        ('^', false) => Look::Start,
                        ('^', true) => Look::StartLF,
                        (_, false) => Look::End,
                        (_, true) => Look::EndLF,
                    };
                    self.push(Hir::look(look));
                }
                '.' => {
                    self.next();
                    self.push(Hir::dot(if self.flags.dot_newline { Dot::AnyChar } else { Dot::AnyCharExceptLF }));
                }
                '[' => {
                    let class = self.class()?;
                    self.push(Hir::class(Class::Unicode(class)));
                }
                '*' | '+' | '?' => {
                    self.next();
                    operator = Some(if c == '*' { (0, None) } else { (u32::from(c == '+'), (c == '?').then_some(1)) });
                }
                '{' => match counts(self.rest) {
                    Some((min, max, rest)) => {
                        self.rest = rest;
                        operator = Some((min, max));
                    }
                    // Braces without a valid count are literal characters.
                    None => self.literal()?,
                },
                '\\' => self.escape()?,
                _ => self.literal()?,
            }
            let Some((min, max)) = operator else {
                repeated = None;
                continue;
            };
            // Lazy or greedy is one when the whole value must match.
            self.take("?");
            if let Some(first) = repeated {
                let both = self.since(first);
                let help = "a repetition is not repeated: put it into parentheses, as in (?:a*)*";
                return Err(BadRegex::syntax(format!("has two repetition operators in a row, `{both}`"), help));
            }
            self.repeat(min, max, self.since(before))?;
            repeated = Some(before);
        }
        Ok(())
    }

    fn repeat(&mut self, min: u32, max: Option<u32>, operator: &str) -> Result<(), BadRegex> {
        let Some(item) = self.items.pop() else {
            let help = format!("write \\{operator} for the letters");
            return Err(BadRegex::syntax(format!("has nothing that `{operator}` could repeat"), help));
        };
        let most = max.unwrap_or(min);
        let repeats = if most >= 2 { item.repeats.saturating_mul(most) } else { item.repeats };
        if min > MOST_REPEATS || most > MOST_REPEATS || most < min || (most >= 2 && repeats > MOST_REPEATS) {
            let help =
                format!("write {{min,max}} with max at least min, and at most {MOST_REPEATS}, nested ones together");
            return Err(BadRegex::syntax(format!("repeats `{operator}`, which is out of range"), help));
        }
        let hir = Hir::repetition(Repetition { min, max, greedy: true, sub: Box::new(item.hir) });
        self.items.push(SyntaxItem { hir, repeats });
        Ok(())
    }

    fn end_branch(&mut self) {
        let items = std::mem::take(&mut self.items);
        self.branches.push(SyntaxItem::joined(items, Hir::concat));
    }

    /// `(`, `(?:`, `(?P<name>`, `(?<name>`, `(?flags)` or `(?flags:`.
    fn open(&mut self) -> Result<(), BadRegex> {
        let before = self.rest;
        if !self.take("(?") {
            self.take("(");
            return self.enter(self.flags);
        }
        for kind in ["=", "!", "<=", "<!"] {
            if self.rest.starts_with(kind) {
                let help = "RE2 has none; match the opposite with `invert`, or put a narrower rule before this one";
                return Err(BadRegex::syntax(format!("has look-around, `(?{kind}`"), help));
            }
        }
        if self.take("P<") || self.take("<") {
            let (name, rest) = self.rest.split_once('>').unwrap_or((self.rest, ""));
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !is_name || self.rest.len() == name.len() {
                let help = "write (?P<name>…) with letters, digits and _, or (…)";
                return Err(BadRegex::syntax(format!("has a bad group name, `{name}`"), help));
            }
            self.rest = rest;
            return self.enter(self.flags);
        }
        let mut flags = self.flags;
        let (mut value, mut is_complete) = (true, true);
        loop {
            match self.next() {
                Some('i') => flags.fold_case = value,
                Some('m') => flags.multi_line = value,
                Some('s') => flags.dot_newline = value,
                // Which match is preferred does not matter when the whole value must match.
                Some('U') => {}
                Some('-') if value => {
                    (value, is_complete) = (false, false);
                    continue;
                }
                Some(':') if is_complete => return self.enter(flags),
                Some(')') if is_complete => {
                    self.flags = flags;
                    return Ok(());
                }
                _ => {
                    let help = "RE2 has (…), (?:…), (?P<name>…) and the flags i, m, s and U, as in (?i) or (?s:…)";
                    return Err(BadRegex::syntax(
                        format!("has an unknown kind of group, `{}`", self.since(before)),
                        help,
                    ));
                }
            }
            is_complete = true;
        }
    }

    /// Begins a group inside which `flags` hold.
    fn enter(&mut self, flags: Flags) -> Result<(), BadRegex> {
        if self.outer.len() >= DEEPEST {
            let help = "remove parentheses that have no effect";
            return Err(BadRegex::limit(format!("nests groups more than {DEEPEST} deep"), help));
        }
        self.outer.push(Outer {
            flags: self.flags,
            items: std::mem::take(&mut self.items),
            branches: std::mem::take(&mut self.branches),
        });
        self.flags = flags;
        Ok(())
    }

    fn close(&mut self) -> Result<(), BadRegex> {
        self.next();
        let Some(outer) = self.outer.pop() else {
            return Err(BadRegex::syntax("has a `)` without a `(` before it", "write \\) for the letter"));
        };
        let group = self.alternation();
        (self.flags, self.items, self.branches) = (outer.flags, outer.items, outer.branches);
        self.items.push(group);
        Ok(())
    }

    /// What has been read since the group began.
    fn alternation(&mut self) -> SyntaxItem {
        self.end_branch();
        SyntaxItem::joined(std::mem::take(&mut self.branches), Hir::alternation)
    }

    fn finish(mut self) -> Result<SyntaxItem, BadRegex> {
        if !self.outer.is_empty() {
            return Err(BadRegex::syntax("has a `(` that is never closed", "write \\( for the letter"));
        }
        Ok(self.alternation())
    }

    fn literal(&mut self) -> Result<(), BadRegex> {
        match self.next() {
            Some(c) => self.push_char(c),
            None => Ok(()),
        }
    }

    fn push_char(&mut self, c: char) -> Result<(), BadRegex> {
        if self.flags.fold_case {
            let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
            fold(&mut class)?;
            self.push(Hir::class(Class::Unicode(class)));
        } else {
            self.push(Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes()));
        }
        Ok(())
    }

    /// A backslash outside of a class.
    fn escape(&mut self) -> Result<(), BadRegex> {
        if self.take("\\Q") {
            let (quoted, rest) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
            self.rest = rest;
            return quoted.chars().try_for_each(|c| self.push_char(c));
        }
        for (text, look) in
            [("\\b", Look::WordAscii), ("\\B", Look::WordAsciiNegate), ("\\A", Look::Start), ("\\z", Look::End)]
        {
            if self.take(text) {
                self.push(Hir::look(look));
                return Ok(());
            }
        }
        if self.take("\\C") {
            self.push(Hir::class(Class::Bytes(ClassBytes::new([ClassBytesRange::new(0, 255)]))));
            return Ok(());
        }
        self.refuse_unicode_class()?;
        if let Some(class) = self.perl_class()? {
            self.push(Hir::class(Class::Unicode(class)));
            return Ok(());
        }
        let c = self.escaped_char()?;
        self.push_char(c)
    }

    fn refuse_unicode_class(&self) -> Result<(), BadRegex> {
        if !self.rest.starts_with("\\p") && !self.rest.starts_with("\\P") {
            return Ok(());
        }
        let end = match self.rest.as_bytes().get(2) {
            Some(b'{') => self.rest.find('}').map_or(self.rest.len(), |end| end + 1),
            _ => self.rest.char_indices().nth(3).map_or(self.rest.len(), |(end, _)| end),
        };
        let class = self.rest.get(..end).unwrap_or_default();
        let help = "list the characters, as in [A-Za-z], or use [[:alpha:]] and its like";
        Err(BadRegex::limit(format!("has the Unicode class `{class}`, which expressions cannot have here"), help))
    }

    /// `\d`, `\s`, `\w` and their opposites: ASCII, as in RE2.
    fn perl_class(&mut self) -> Result<Option<ClassUnicode>, BadRegex> {
        let ranges: &[(char, char)] = match self.rest.as_bytes().get(..2) {
            Some(b"\\d" | b"\\D") => &[('0', '9')],
            Some(b"\\s" | b"\\S") => &[('\t', '\n'), ('\u{c}', '\r'), (' ', ' ')],
            Some(b"\\w" | b"\\W") => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
            _ => return Ok(None),
        };
        let is_negated = self.rest.as_bytes().get(1).is_some_and(u8::is_ascii_uppercase);
        self.rest = self.rest.get(2..).unwrap_or_default();
        self.named_class(ranges, is_negated).map(Some)
    }

    fn named_class(&self, ranges: &[(char, char)], is_negated: bool) -> Result<ClassUnicode, BadRegex> {
        let mut class = ClassUnicode::new(ranges.iter().map(|&(from, to)| ClassUnicodeRange::new(from, to)));
        if self.flags.fold_case {
            fold(&mut class)?;
        }
        if is_negated {
            class.negate();
        }
        Ok(class)
    }

    /// One character that is written with a backslash.
    fn escaped_char(&mut self) -> Result<char, BadRegex> {
        let before = self.rest;
        self.next();
        let Some(c) = self.next() else {
            return Err(BadRegex::syntax("ends in a backslash", "write \\\\ for the letter"));
        };
        let found = match c {
            '0'..='7' => self.octal(c),
            'x' => self.hexadecimal(),
            'a' => Some('\x07'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\x0b'),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(c),
            _ => None,
        };
        found.ok_or_else(|| {
            let written = self.since(before);
            if c.is_ascii_digit() && written.len() == 2 {
                let help = "RE2 has no back-references";
                return BadRegex::syntax(format!("has the back-reference `{written}`"), help);
            }
            let help = "write the letter without a backslash; RE2 has \\d \\s \\w \\b \\A \\z \\n \\t \\x41 \\Q…\\E";
            BadRegex::syntax(format!("has the unknown escape `{written}`"), help)
        })
    }

    /// Up to three octal digits; `\1` alone would be a back-reference.
    fn octal(&mut self, first: char) -> Option<char> {
        let mut code = first.to_digit(8)?;
        let digits = self.rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
        if digits == 0 && first != '0' {
            return None;
        }
        for _ in 0..digits {
            code = code * 8 + self.next()?.to_digit(8)?;
        }
        char::from_u32(code)
    }

    /// `\x41` or `\x{41}`, behind the x.
    fn hexadecimal(&mut self) -> Option<char> {
        if !self.take("{") {
            let high = self.next()?.to_digit(16)?;
            return char::from_u32(high * 16 + self.next()?.to_digit(16)?);
        }
        let mut code = self.next()?.to_digit(16)?;
        loop {
            match self.next()? {
                '}' => return char::from_u32(code),
                c => code = code.checked_mul(16)?.checked_add(c.to_digit(16)?)?,
            }
        }
    }

    /// `[…]`.
    fn class(&mut self) -> Result<ClassUnicode, BadRegex> {
        let whole = self.rest;
        self.next();
        let is_negated = self.take("^");
        let mut class = ClassUnicode::empty();
        let mut is_first = true;
        loop {
            match self.peek() {
                None => {
                    let help = "write \\[ for the letter";
                    return Err(BadRegex::syntax(
                        format!("has a class that is never closed, `{}`", shortened(whole)),
                        help,
                    ));
                }
                // As the first character it is literal.
                Some(']') if !is_first => break,
                Some(_) => {}
            }
            is_first = false;
            if let Some(named) = self.posix_class()? {
                class.union(&named);
                continue;
            }
            self.refuse_unicode_class()?;
            if let Some(named) = self.perl_class()? {
                class.union(&named);
                continue;
            }
            let before = self.rest;
            let from = self.class_char()?;
            let to = if self.rest.starts_with('-') && !self.rest.starts_with("-]") && self.rest.len() > 1 {
                self.next();
                self.class_char()?
            } else {
                from
            };
            if to < from {
                let range = self.since(before);
                return Err(BadRegex::syntax(
                    format!("has the range `{range}`, which is empty"),
                    "write it the other way round",
                ));
            }
            let mut range = ClassUnicode::new([ClassUnicodeRange::new(from, to)]);
            if self.flags.fold_case {
                fold(&mut range)?;
            }
            class.union(&range);
        }
        self.next();
        if is_negated {
            class.negate();
        }
        Ok(class)
    }

    fn class_char(&mut self) -> Result<char, BadRegex> {
        if self.peek() == Some('\\') {
            return self.escaped_char();
        }
        self.next().ok_or_else(|| BadRegex::syntax("has a class that is never closed", "write \\[ for the letter"))
    }

    /// `[:alpha:]` inside a class.
    fn posix_class(&mut self) -> Result<Option<ClassUnicode>, BadRegex> {
        let Some((name, rest)) = self.rest.strip_prefix("[:").and_then(|rest| rest.split_once(":]")) else {
            return Ok(None);
        };
        let (is_negated, bare) = name.strip_prefix('^').map_or((false, name), |bare| (true, bare));
        let ranges: &[(char, char)] = match bare {
            "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
            "alpha" => &[('A', 'Z'), ('a', 'z')],
            "ascii" => &[('\0', '\x7f')],
            "blank" => &[('\t', '\t'), (' ', ' ')],
            "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
            "digit" => &[('0', '9')],
            "graph" => &[('!', '~')],
            "lower" => &[('a', 'z')],
            "print" => &[(' ', '~')],
            "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
            "space" => &[('\t', '\r'), (' ', ' ')],
            "upper" => &[('A', 'Z')],
            "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
            "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
            _ => {
                let help = "RE2 has alnum, alpha, ascii, blank, cntrl, digit, graph, lower, print, punct, space, upper, word and xdigit";
                return Err(BadRegex::syntax(format!("has the unknown class `[:{}:]`", shortened(name)), help));
            }
        };
        self.rest = rest;
        self.named_class(ranges, is_negated).map(Some)
    }
}

/// `{n}`, `{n,}` or `{n,m}` at the beginning of `text`, and what follows it. Numbers that are too large stay too large.
fn counts(text: &str) -> Option<(u32, Option<u32>, &str)> {
    let (inside, rest) = text.strip_prefix('{')?.split_once('}')?;
    let number = |digits: &str| -> Option<u32> {
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        // `{01}` is not a count.
        let has_leading_zero = digits.len() > 1 && digits.starts_with('0');
        (is_number && !has_leading_zero).then(|| digits.parse().unwrap_or(u32::MAX))
    };
    match inside.split_once(',') {
        None => number(inside).map(|n| (n, Some(n), rest)),
        Some((min, "")) => number(min).map(|min| (min, None, rest)),
        Some((min, max)) => Some((number(min)?, Some(number(max)?), rest)),
    }
}

/// Adds the other cases of each character.
fn fold(class: &mut ClassUnicode) -> Result<(), BadRegex> {
    class
        .try_case_fold_simple()
        .map_err(|_| BadRegex::limit("uses (?i), which is not supported", "write both cases: [aA]"))
}

/// The part of `text` that fits into a message.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
