//! Formats a change of a text as a unified diff for `patch` and `git apply`.

/// The number of unchanged lines around a change.
const CONTEXT: usize = 3;

/// The change from `old` to `new` in the file `name`; empty when they are equal. There is one hunk, because the changed
/// lines are adjacent.
pub fn unified(old: &str, new: &str, name: &str) -> String {
    if old == new {
        return String::new();
    }
    let (before, after): (Vec<&str>, Vec<&str>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let same = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    let most = before.len().min(after.len()) - same;
    let same_end = before.iter().rev().zip(after.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
    let begin = same.saturating_sub(CONTEXT);
    let tail = same_end.min(CONTEXT);
    let lines = |lines: &[&str], from: usize, to: usize, sign: char| {
        let line = |line: &&str| match line.strip_suffix('\n') {
            Some(line) => format!("{sign}{line}\n"),
            None => format!("{sign}{line}\n\\ No newline at end of file\n"),
        };
        lines.get(from..to).unwrap_or_default().iter().map(line).collect::<String>()
    };
    let (old_end, new_end) = (before.len() - same_end, after.len() - same_end);
    let range = |length: usize| format!("{},{length}", if length == 0 { begin } else { begin + 1 });
    format!(
        "--- {name}\n+++ {name}\n@@ -{} +{} @@\n{}{}{}{}",
        range(old_end + tail - begin),
        range(new_end + tail - begin),
        lines(&before, begin, same, ' '),
        lines(&before, same, old_end, '-'),
        lines(&after, same, new_end, '+'),
        lines(&before, old_end, old_end + tail, ' '),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_three_lines_around_it() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n";
        let new = "1\n2\n3\n4\nx\ny\n5\n6\n7\n8\n";
        assert_eq!(unified(old, new, "p"), "--- p\n+++ p\n@@ -2,6 +2,8 @@\n 2\n 3\n 4\n+x\n+y\n 5\n 6\n 7\n");
        assert_eq!(unified(old, old, "p"), "");
        assert_eq!(
            unified("a", "a\nb\n", "p"),
            "--- p\n+++ p\n@@ -1,1 +1,2 @@\n-a\n\\ No newline at end of file\n+a\n+b\n"
        );
        assert_eq!(unified("", "a\n", "p"), "--- p\n+++ p\n@@ -0,0 +1,1 @@\n+a\n");
    }
}
