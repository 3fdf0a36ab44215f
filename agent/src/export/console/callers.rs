//! The innermost functions of a stack, short enough for a line.

/// How many.
const SHOWN: usize = 3;

/// From the text of `exception.stacktrace`: ` at f ← g ← h`, the innermost first; nothing of a text that
/// says no functions.
pub(super) fn innermost(stack: &str) -> String {
    let mut names: Vec<&str> = stack.lines().filter_map(name).collect();
    // Python writes the innermost last.
    if stack.lines().any(|line| line.starts_with("  File \"")) {
        names.reverse();
    }
    names.truncate(SHOWN);
    if names.is_empty() { String::new() } else { format!(" at {}", names.join(" ← ")) }
}

/// The function of a line, see `stack::text`.
fn name(line: &str) -> Option<&str> {
    if let Some(native) = line.strip_prefix("at ") {
        let end = native.rfind("+0x").or(native.rfind(" ("))?;
        return native.get(..end).filter(|name| !name.starts_with("0x"));
    }
    if line.starts_with("  File \"") {
        return line.rsplit_once(", in ").map(|(_, name)| name);
    }
    line.strip_suffix("(...)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_each_language() {
        for (stack, expected) in [
            (
                "at app::f+0x1d (a)\nat g (g.cpp:3)\nat 0x12 (a)\nat h+0x3 (a)\nat i+0x1 (a)",
                " at app::f ← g ← h",
            ),
            ("main.f(...)\n\t/a.go:3 +0x1d\nmain.main(...)\n\t/a.go:9", " at main.f ← main.main"),
            (
                "Stack (most recent call last):\n  File \"a.py\", line 3, in <module>\n  \
                 File \"b.py\", in C.f",
                " at C.f ← <module>",
            ),
            ("… (not followed further: the stack could not be read)", ""),
        ] {
            assert_eq!(innermost(stack), expected);
        }
    }
}
