//! Splits a command line into words as a shell does: bash with `$'…'` (copied by browsers on Linux and macOS), or
//! cmd.exe with carets (browsers on Windows).

use anyhow::{Context as _, bail};

/// Splits `line` by the rules of the shell that it was copied for.
///
/// # Errors
/// Returns an error when a quote is not closed.
pub fn words(line: &str) -> anyhow::Result<Vec<String>> {
    let line = line.replace("\r\n", "\n");
    if is_windows(&line) { windows(&without_carets(&line)) } else { posix(&line) }
}

/// Whether a line is for cmd.exe: other shells give no meaning to a caret before a quote or at the end of a line.
fn is_windows(line: &str) -> bool {
    line.contains("^\"") || line.contains("^\n")
}

/// POSIX quoting (XCU §2.2), and `$'…'` (§2.2.4 of issue 8). Only the first command, without redirections.
fn posix(line: &str) -> anyhow::Result<Vec<String>> {
    let mut words = ShellWords::default();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let word = &mut words.word;
        match c {
            c if c.is_ascii_whitespace() => words.end(),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().context("the curl command line has an open single quote")? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '$' if chars.peek() == Some(&'\'') => {
                chars.next();
                ansi_c(&mut chars, word.get_or_insert_default())?;
            }
            // A translated string of bash, read as if there were no translation.
            '$' if chars.peek() == Some(&'"') => {}
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            '#' if word.is_none() => while chars.next_if(|&c| c != '\n').is_some() {},
            '|' | ';' | '&' => break,
            '<' | '>' => words.redirect(&mut chars)?,
            '$' | '`' => {
                expanded(c, &chars)?;
                word.get_or_insert_default().push(c);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.end();
    Ok(words.all)
}

/// The words of a command.
#[derive(Default)]
struct ShellWords {
    all: Vec<String>,
    /// The current word.
    word: Option<String>,
    /// Whether the current word is the file of a redirection.
    is_file: bool,
}

impl ShellWords {
    fn end(&mut self) {
        if let Some(word) = self.word.take()
            && !std::mem::take(&mut self.is_file)
        {
            self.all.push(word);
        }
    }

    /// Redirections such as `2>file`, `>>file`, `2>&1`.
    fn redirect(&mut self, chars: &mut Chars<'_>) -> anyhow::Result<()> {
        if self.word.as_ref().is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit())) {
            self.word = None;
        }
        self.end();
        while chars.next_if(|c| "<>&|".contains(*c)).is_some() {}
        if chars.peek() == Some(&'(') {
            bail!("the curl command line has `(…)`, which only a shell can evaluate: write its output instead");
        }
        self.is_file = true;
        Ok(())
    }
}

type Chars<'l> = std::iter::Peekable<std::str::Chars<'l>>;

/// Reads the rest of `"…"`, up to its closing quote.
fn double_quoted(chars: &mut Chars<'_>, word: &mut String) -> anyhow::Result<()> {
    const OPEN: &str = "the curl command line has an open double quote";
    loop {
        match chars.next().context(OPEN)? {
            '"' => return Ok(()),
            '\\' => match chars.next().context(OPEN)? {
                '\n' => {}
                c if "$`\"\\".contains(c) => word.push(c),
                c => word.extend(['\\', c]),
            },
            c @ ('$' | '`') => {
                expanded(c, chars)?;
                word.push(c);
            }
            c => word.push(c),
        }
    }
}

/// Refuses what the shell would have substituted: a variable, or the output of a command.
fn expanded(sign: char, chars: &Chars<'_>) -> anyhow::Result<()> {
    let rest: String = chars.clone().collect();
    let upto = |end: char| rest.find(end).map_or(rest.len(), |at| at + end.len_utf8());
    let length = match (sign, chars.clone().next()) {
        ('`', _) => upto('`'),
        (_, Some('{')) => upto('}'),
        (_, Some('(')) => upto(')'),
        (_, Some(c)) if c.is_ascii_alphabetic() || c == '_' => {
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len())
        }
        (_, Some(c)) if c.is_ascii_digit() || "@*?!-$".contains(c) => 1,
        _ => return Ok(()),
    };
    let what = rest.get(..length).unwrap_or_default();
    bail!("the curl command line has `{sign}{what}`, which only a shell can evaluate: write its value instead")
}

/// Reads the rest of `$'…'`, up to its closing quote.
fn ansi_c(chars: &mut Chars<'_>, word: &mut String) -> anyhow::Result<()> {
    const OPEN: &str = "the curl command line has an open $' quote";
    /// Reads up to `most` digits.
    fn number(chars: &mut Chars<'_>, radix: u32, most: usize) -> Option<u32> {
        let mut value = None;
        for _ in 0..most {
            let Some(digit) = chars.peek().and_then(|c| c.to_digit(radix)) else { break };
            chars.next();
            value = Some(value.unwrap_or(0) * radix + digit);
        }
        value
    }
    // Several byte escapes may form one character.
    let mut bytes: Vec<u8> = Vec::new();
    let flush = |bytes: &mut Vec<u8>, word: &mut String| {
        word.push_str(&String::from_utf8_lossy(bytes));
        bytes.clear();
    };
    loop {
        let c = chars.next().context(OPEN)?;
        let (c, is_byte) = match c {
            '\'' => break,
            '\\' => match chars.next().context(OPEN)? {
                'a' => ('\u{7}', false),
                'b' => ('\u{8}', false),
                'e' | 'E' => ('\u{1b}', false),
                'f' => ('\u{c}', false),
                'n' => ('\n', false),
                'r' => ('\r', false),
                't' => ('\t', false),
                'v' => ('\u{b}', false),
                'x' => match number(chars, 16, 2) {
                    Some(byte) => (char::from_u32(byte).unwrap_or_default(), true),
                    None => ('x', false),
                },
                letter @ ('u' | 'U') => {
                    let most = if letter == 'u' { 4 } else { 8 };
                    let Some(mut code) = number(chars, 16, most) else { bail!("\\{letter} has no number in $'…'") };
                    // JavaScript writes a character above U+FFFF as a surrogate pair.
                    if (0xd800..0xdc00).contains(&code)
                        && chars.next_if_eq(&'\\').is_some()
                        && chars.next_if_eq(&'u').is_some()
                        && let Some(low) = number(chars, 16, 4)
                        && (0xdc00..0xe000).contains(&low)
                    {
                        code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    }
                    (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), false)
                }
                digit @ '0'..='7' => {
                    let first = digit.to_digit(8).unwrap_or(0);
                    let mut value = first;
                    for _ in 0..2 {
                        let Some(next) = chars.peek().and_then(|c| c.to_digit(8)) else { break };
                        chars.next();
                        value = value * 8 + next;
                    }
                    (char::from_u32(value & 0xff).unwrap_or_default(), true)
                }
                c if "\\'\"?".contains(c) => (c, false),
                c => {
                    flush(&mut bytes, word);
                    word.push('\\');
                    (c, false)
                }
            },
            c => (c, false),
        };
        match u8::try_from(u32::from(c)) {
            Ok(byte) if is_byte => bytes.push(byte),
            _ => {
                flush(&mut bytes, word);
                word.push(c);
            }
        }
    }
    flush(&mut bytes, word);
    Ok(())
}

/// The line that cmd.exe passes to a program: outside of quotes, a caret escapes the next character.
fn without_carets(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '^' if !quoted => match chars.next() {
                // A caret continues the line; a second line break after it belongs to the text.
                Some('\n') => out.extend(chars.next_if_eq(&'\n')),
                Some(c) => out.push(c),
                None => {}
            },
            '"' => {
                quoted = !quoted;
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// Splits a Windows command line by the rules of its C runtime.
fn windows(line: &str) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let (mut quoted, mut backslashes) = (false, 0);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\\' {
            backslashes += 1;
            continue;
        }
        let before = std::mem::take(&mut backslashes);
        if c == '"' {
            let word = word.get_or_insert_default();
            word.extend(std::iter::repeat_n('\\', before / 2));
            if before % 2 == 1 || (quoted && chars.next_if_eq(&'"').is_some()) {
                word.push('"');
            } else {
                quoted = !quoted;
            }
            continue;
        }
        if before > 0 {
            word.get_or_insert_default().extend(std::iter::repeat_n('\\', before));
        }
        match c {
            c if c.is_ascii_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if backslashes > 0 {
        word.get_or_insert_default().extend(std::iter::repeat_n('\\', backslashes));
    }
    anyhow::ensure!(!quoted, "the curl command line has an open double quote");
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bash_words_may_have_ansi_c_quotes() {
        for (line, expected) in [
            (r"a 'b c' d", &["a", "b c", "d"][..]),
            (r"$'a\u0021b' $'it\'s' $'\x41\102\n'", &["a!b", "it's", "AB\n"]),
            (r"$'\xc3\xa9\ud83d\ude00\q'", &["é😀\\q"]),
            ("a\\\n b\\ c \"d\\\"e\\f\" ''", &["a", "b c", "d\"e\\f", ""]),
            ("pre$'x'post # comment", &["prexpost"]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        for line in ["'a", "\"a", "$'a"] {
            assert!(words(line).unwrap_err().to_string().contains("open"), "{line}");
        }
    }

    #[test]
    fn windows_words_lose_their_carets() {
        for (line, expected) in [
            (
                "curl ^\"https://a.test/?a=1^&b=2^\" ^\n  -H ^\"x: y^\"",
                &["curl", "https://a.test/?a=1&b=2", "-H", "x: y"][..],
            ),
            ("curl ^\r\n -d ^\"^{^\\^\"a^\\^\":1^}^\"", &["curl", "-d", "{\"a\":1}"]),
            ("curl \"https://a.test/^x\" ^\n -H \"a: \"\"b\"\"\"", &["curl", "https://a.test/^x", "-H", "a: \"b\""]),
            ("curl ^\"a^%^20b\\\\^\" ^\"\"", &["curl", "a%20b\\", ""]),
            ("curl ^\"a^\n\nb^\"", &["curl", "a\nb"]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        assert!(words("curl ^\"a").is_err());
    }
}
