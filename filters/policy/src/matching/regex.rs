//! Regular expressions: linear time, anchored to the whole value, bounded in size.
//!
//! The syntax is that of RE2 as far as `regex-lite` has it (no Unicode classes); the engine is a Pike VM (Cox,
//! "Regular Expression Matching: the Virtual Machine Approach", 2009): O(pattern × text) for every pattern.

/// The most bytes that one compiled expression may take; the first that suffices is charged.
const SIZES: [usize; 3] = [4 << 10, 32 << 10, 256 << 10];

/// An expression that matches whole values only.
#[derive(Clone, Debug)]
pub struct Regex {
    pattern: Box<str>,
    literal_prefix: Box<str>,
    program: regex_lite::Regex,
    size: usize,
}

/// Why a pattern was refused, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadRegex(String);

impl Regex {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// A syntax error, or a program of more than 256 KiB.
    pub fn new(pattern: &str) -> Result<Regex, BadRegex> {
        // Alone first: `a)(b` is wrong, but would be right between the parentheses below.
        let (_, size) = compile(pattern)?;
        let (program, size) = match compile(&format!(r"\A(?:{pattern})\z")) {
            Ok(program) => program,
            // `(?x)a # comment` swallows the closing parenthesis; there a line break is white space.
            Err(_) if size < SIZES[2] => compile(&format!("\\A(?:{pattern}\n)\\z"))?,
            Err(error) => return Err(error),
        };
        Ok(Regex { pattern: pattern.into(), literal_prefix: literal_prefix(pattern).into(), program, size })
    }

    /// Whether the whole of `value` matches. As in RE2, a value that is not UTF-8 matches nothing.
    pub fn matches(&self, value: &[u8]) -> bool {
        value.starts_with(self.literal_prefix.as_bytes())
            && std::str::from_utf8(value).is_ok_and(|text| self.program.is_match(text))
    }

    /// The text that every matching value begins with.
    pub fn literal_prefix(&self) -> &[u8] {
        self.literal_prefix.as_bytes()
    }

    /// The pattern as written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// An upper bound for the bytes of heap that the compiled program takes.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// Compiles within the smallest of [`SIZES`] that suffices.
fn compile(pattern: &str) -> Result<(regex_lite::Regex, usize), BadRegex> {
    let mut error = String::new();
    for size in SIZES {
        match regex_lite::RegexBuilder::new(pattern).size_limit(size).nest_limit(64).build() {
            Ok(program) => return Ok((program, size)),
            Err(reason) => error = reason.to_string(),
        }
    }
    Err(BadRegex(error))
}

/// The literal that `pattern` begins with, short rather than wrong: up to the first character that could be syntax,
/// and empty when the pattern has an alternative or sets a flag.
fn literal_prefix(pattern: &str) -> &str {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    if pattern.contains('|') || pattern.contains("(?") {
        return "";
    }
    let is_literal = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "/-_~:;,=@%&!'\"<>".contains(c);
    let end = pattern.find(|c| !is_literal(c)).unwrap_or(pattern.len());
    let (literal, rest) = pattern.split_at_checked(end).unwrap_or_default();
    if !rest.starts_with(['?', '*', '{']) {
        return literal;
    }
    // The last character may occur zero times.
    literal.char_indices().last().and_then(|(last, _)| literal.get(..last)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn matches(pattern: &str, value: &str) -> bool {
        Regex::new(pattern).unwrap().matches(value.as_bytes())
    }

    #[test]
    fn the_whole_value_must_match() {
        assert!(matches("/v[0-9]+/items", "/v2/items"));
        assert!(!matches("/v[0-9]+/items", "/v2/items/5"));
        assert!(!matches("/v[0-9]+/items", "x/v2/items"));
        assert!(matches("a|ab", "ab"), "an early alternative must not hide a longer one");
        assert!(matches("^a$", "a"));
        assert!(matches("(?x) a # comment", "a"));
        assert!(matches("(?m)^a$", "a") && !matches("(?m)^a$", "a\nb"));
        assert!(matches("", "") && !matches("", "a"));
        assert!(matches("(?i)beta", "BETA"));
        assert!(!matches("a", "a\n"));
        assert!(matches("caf.", "café"), "a dot is a character, not a byte");
    }

    #[test]
    fn a_value_that_is_not_utf8_matches_nothing() {
        assert!(!Regex::new(".*").unwrap().matches(b"a\xffb"));
    }

    #[test]
    fn the_literal_prefix_is_what_every_match_begins_with() {
        for (pattern, prefix) in [
            ("/v[0-9]+", "/v"),
            ("^/api/(a)", "/api/"),
            ("/a.b", "/a"),
            (r"/a\.b", "/a"),
            ("abc", "abc"),
            ("é*b", ""),
            ("a?b", ""),
            ("ab{0,1}", "a"),
            ("ab+", "ab"),
            ("a|b", ""),
            ("(?i)ab", ""),
            ("ab(?i)c", ""),
            ("ab*", "a"),
            ("", ""),
        ] {
            assert_eq!(literal_prefix(pattern), prefix, "{pattern}");
        }
    }

    #[test]
    fn bad_patterns_are_refused_in_one_line() {
        for pattern in ["a(b", "a)(b", r"(a)\1", "(?=a)", r"\pL", "[", "*", &"(".repeat(10_000)] {
            let error = Regex::new(pattern).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains('\n'), "{pattern}: {error}");
        }
        let error = Regex::new("(((((a{100}){100}){100}){100}){100})").unwrap_err().to_string();
        assert!(error.contains("size limit"), "{error}");
    }

    #[test]
    fn time_is_linear_in_the_text() {
        let regex = Regex::new("(a*)*b").unwrap();
        assert!(!regex.matches("a".repeat(20_000).as_bytes()));
    }
}
