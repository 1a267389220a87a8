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
    assert!(matches("(?m)^a$", "a") && !matches("(?m)^a$", "a\nb"));
    assert!(matches("", "") && !matches("", "a"));
    assert!(matches("(?i)beta", "BETA"));
    assert!(!matches("a", "a\n"));
    assert!(matches("caf.", "café"), "a dot is a character, not a byte");
}

#[test]
fn a_value_that_is_not_utf8_matches_only_what_asks_for_bytes() {
    assert!(!Regex::new(".*").unwrap().matches(b"a\xffb"));
    assert!(!Regex::new(".*a.*").unwrap().matches(b"a\xffb"));
    assert!(Regex::new(r"a\Cb").unwrap().matches(b"a\xffb"));
}

#[test]
fn the_literal_prefix_is_what_every_match_begins_with() {
    for (pattern, prefix) in [
        ("/v[0-9]+", "/v"),
        ("^/api/(a)", "/api/a"),
        ("/a.b", "/a"),
        (r"/a\.b", "/a.b"),
        (r"\Q/a.b\E.*", "/a.b"),
        ("abc", "abc"),
        ("é*b", ""),
        ("a?b", ""),
        ("ab{0,1}", "a"),
        ("ab+", "a"),
        ("a|b", ""),
        ("(?i)ab", ""),
        ("ab(?i)c", "ab"),
        ("ab*", "a"),
        ("", ""),
        (".*abc.*", ""),
    ] {
        assert_eq!(Regex::new(pattern).unwrap().literal_prefix(), prefix.as_bytes(), "{pattern}");
    }
}

#[test]
fn a_refusal_says_in_one_line_what_is_wrong_and_what_would_be_right() {
    for (pattern, message, help) in [
        ("a(b", "`(` that is never closed", r"\("),
        ("a)(b", "`)` without a `(` before it", r"\)"),
        (r"(a)\1", r"back-reference `\1`", "RE2 has no"),
        ("(?=a)", "look-around, `(?=`", "invert"),
        ("/(?!admin).*", "look-around, `(?!`", "invert"),
        (r"\pL", r"Unicode class `\pL`", "[A-Za-z]"),
        (r"[\p{Greek}x]", r"Unicode class `\p{Greek}`", "[A-Za-z]"),
        ("[", "a class that is never closed", r"\["),
        ("*", "nothing that `*` could repeat", r"\*"),
        ("a**", "two repetition operators in a row, `**`", "(?:a*)*"),
        (".*(.{1,50}){1,50}b", "`{1,50}`, which is out of range", "nested ones together"),
        ("a{2,1}", "`{2,1}`, which is out of range", "{min,max}"),
        ("(?x)a", "an unknown kind of group, `(?x`", "(?i)"),
        (r"\Z", r"the unknown escape `\Z`", r"\z"),
        ("[z-a]", "the range `z-a`, which is empty", "other way round"),
        ("a\\", "ends in a backslash", r"\\"),
        (&"(".repeat(10_000), "200 deep", "parentheses"),
        (&"a".repeat(100_000), "longer than 64 KiB", "In"),
    ] {
        let error = Regex::new(pattern).unwrap_err();
        assert!(error.message.contains(message) && error.help.contains(help), "{pattern}: {error:?}");
        assert!(!error.message.contains('\n') && !error.help.contains('\n'), "{pattern}: {error:?}");
    }
}

/// Inputs of reports: each held a worker for up to six seconds. Only natively is there a clock.
#[cfg(not(target_arch = "wasm32"))]
#[test]
fn what_would_take_too_many_states_is_refused_before_it_can_cost_anything() {
    for pattern in
        [".*(.{1,30}){1,30}b", ".*a.{1,100}b", "(?i).*a.{1,60}b.*", "(.*a.{20}){3}", "(.{0,30}a.{0,30}b.{0,30}c){1,10}"]
    {
        let begun = std::time::Instant::now();
        let error = Regex::new(pattern).unwrap_err();
        assert!(error.message.contains("too many states") && error.help.contains("Contains"), "{pattern}: {error:?}");
        // Generous: this is a debug build, on a machine that does other things.
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{pattern}: {:?}", begun.elapsed());
    }
}

#[test]
fn counted_repetitions_that_need_no_combinations_are_fine() {
    assert!(matches("(?i).*[a-z0-9]{1,200}x.*", &format!("{}X", "a".repeat(1000))));
    assert!(matches(".{0,500}", &"é".repeat(500)) && !matches(".{0,500}", &"é".repeat(501)));
    assert!(matches("[a-z]{1000}", &"a".repeat(1000)));
    assert!(matches(".*id=[0-9a-f]{8}-[0-9a-f]{4}-.*", "x id=01234567-89ab-cd"));
}

#[test]
fn a_value_above_8_kib_matches_nothing() {
    assert!(matches("a*", &"a".repeat(LONGEST_VALUE)));
    assert!(!matches("a*", &"a".repeat(LONGEST_VALUE + 1)));
}

/// Expressions that share an automaton answer as each does alone.
#[test]
fn expressions_on_one_field_answer_together_what_they_answer_alone() {
    let patterns: Vec<String> = (0..200)
        .map(|i| match i % 5 {
            0 => format!(".*(Bot{i}|crawler{i}|spider{i}).*"),
            1 => format!("/api/v{i}/.*"),
            2 => format!(".*a{}b{i}.*c.*", i % 7),
            3 => format!("(?s).*x{i}.*|.*y{i}.*"),
            _ => format!("[a-z]+-{i}"),
        })
        .collect();
    let mut expressions = Expressions::new(64 << 20);
    let together: Vec<_> = patterns.iter().map(|pattern| expressions.add("x", pattern, String::new).unwrap()).collect();
    assert!(Arc::ptr_eq(&together[0], &expressions.add("x", &patterns[0], String::new).unwrap()));
    expressions.share();
    let numbers: std::collections::BTreeSet<_> = together.iter().map(|regex| regex.place().number).collect();
    assert!(numbers.len() < 90 && !numbers.contains(&None), "{numbers:?}");
    for value in [
        "Mozilla Bot10 crawler15",
        "/api/v6/x",
        "a3b17 c",
        "x13",
        "\nx13",
        "y18",
        "a-4",
        "z-199",
        "",
        "é Bot100",
        "Bot1000 Bot10 /api/v1/ y3 x3 a6b27c",
    ] {
        let answers = Answers::default();
        for (pattern, regex) in patterns.iter().zip(&together) {
            let alone = Regex::new(pattern).unwrap().matches(value.as_bytes());
            assert_eq!(regex.matches(value.as_bytes()), alone, "{pattern} {value}");
            let values = [b"other".as_slice(), value.as_bytes()];
            let any = regex.matches_any(values.into_iter(), Some((&answers, Asked::Header)));
            assert_eq!(any, alone, "{pattern} {value}");
        }
    }
}

#[test]
fn fields_of_one_name_are_told_apart() {
    let mut expressions = Expressions::new(1 << 20);
    let regex = expressions.add("x", "a+", String::new).unwrap();
    expressions.share();
    let answers = Answers::default();
    let ask = |value: &'static [u8], kind| regex.matches_any(std::iter::once(value), Some((&answers, kind)));
    assert!(ask(b"aa", Asked::Query) && !ask(b"b", Asked::Cookie) && ask(b"a", Asked::Header));
    assert!(ask(b"b", Asked::Query), "the first answer of a request counts");
    assert!(!answers.has_long_value());
    assert!(!ask(&[b'a'; LONGEST_VALUE + 1], Asked::Path) && answers.has_long_value());
}

#[test]
fn what_needs_too_many_passes_is_refused_with_its_place() {
    let mut expressions = Expressions::new(256 << 20);
    for i in 0..200 {
        let pattern = format!(".*{i}aaaaaaaaaaaaaaaaaaaa.*{i}bbbbbbbbbbbbbbbbbbbb.*{i}cccccccccccccccccc.*");
        expressions.add("user-agent", &pattern, || format!("rule {i}")).unwrap();
    }
    let problems = expressions.share();
    let [(path, help)] = problems.as_slice() else { panic!("{problems:?}") };
    assert!(path.starts_with("rule ") && help.contains("user-agent") && help.contains("Contains"), "{path}: {help}");
}

#[test]
fn many_searches_on_one_field_find_together_what_each_finds_alone() {
    let needles: Vec<Vec<u8>> = (0..150)
        .map(|i| format!("Bot{i}").into_bytes())
        .chain([vec![b'a'], vec![0xff, b'\n'], b"ot1".to_vec()])
        .collect();
    let mut expressions = Expressions::new(1 << 20);
    let shared: Vec<_> = needles.iter().map(|needle| expressions.add_substring("x", needle)).collect();
    let alone = expressions.add_substring("y", b"only");
    assert!(expressions.share().is_empty());
    assert!(shared.iter().all(|text| text.place.get().is_some()) && alone.place.get().is_none());
    let long = [b"Bo".repeat(20_000), b"Bot149".to_vec()].concat();
    for value in [&b""[..], b"Bot1", b"xBot15y", b"\xff\n", b"a\xff\n", &long] {
        let answers = Answers::default();
        for (needle, text) in needles.iter().zip(&shared) {
            let expected = Substring::new(needle).is_in(value);
            let values = [&b"-"[..], value].into_iter();
            assert_eq!(text.is_in_any(values, Some((&answers, Asked::Header))), expected, "{needle:?} {value:?}");
        }
    }
}
