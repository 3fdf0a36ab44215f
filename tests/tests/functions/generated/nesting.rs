//! Programs in C++ whose calls end in every way: by returning, by a jump to another function, by an exception,
//! by longjmp(3), not at all; on several threads and stacks, and under signals.

use std::fmt::Write as _;

use super::dice::Dice;
use super::planned::{Function, Outcome, Planned};

/// What all of them begin with.
const HEAD: &str = include_str!("../../../programs/functions/made/ways.h");

/// Which stacks a program has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stacks {
    /// Those of its threads.
    Own,
    /// Others, with room between them.
    Apart,
    /// Others, one beside the other, as a pool of them is.
    Near,
}

/// Makes up a program.
pub(crate) fn program(seed: u64, stacks: Stacks) -> Planned {
    let mut dice = Dice::new(seed ^ 0x6e65_7374);
    let count = 8 + dice.below(10);
    let mut heads = String::new();
    let mut bodies = String::new();
    let mut functions = Vec::new();
    for number in 0..count {
        let head = format!("KEEP int g_{number}(int n)");
        let _ = writeln!(heads, "{head};");
        let mut body = String::new();
        let mut leaves = None;
        for _ in 0..1 + dice.below(4) {
            let to = dice.below(count);
            let call = format!("if (MAY_CALL()) sum += g_{to}(n + 1);");
            let _ = match dice.below(if stacks == Stacks::Own { 10 } else { 13 }) {
                0..=3 => writeln!(body, "\t{call}"),
                4 => writeln!(body, "\tfor (int i = 0; i < 3; i++) {call}"),
                5 => writeln!(body, "\tTRY(sum += g_{to}(n + 1));"),
                6 => writeln!(body, "\tJUMPS(sum += g_{to}(n + 1));"),
                7 if dice.percent(40) => writeln!(body, "\tTHROW();"),
                7 if dice.percent(40) => writeln!(body, "\tJUMP();"),
                8 => writeln!(body, "\tSIGNAL(g_{to});"),
                // Compilers make a loop of a function that ends with itself.
                9 if to != number => {
                    leaves = Some(to);
                    Ok(())
                }
                10..=12 => writeln!(body, "\tYIELD();"),
                _ => writeln!(body, "\t{call}"),
            };
        }
        let last = match leaves {
            Some(to) => format!(
                "\tif (MAY_CALL()) {{ LEAVES({number}); return g_{to}(n + 1); }}\n\tLEFT({number});\n\treturn sum;"
            ),
            None => format!("\tLEFT({number});\n\treturn sum;"),
        };
        let _ = writeln!(bodies, "{head}\n{{\n\tENTERED({number});\n{body}{last}\n}}\n");
        functions.push(Function { parameters: Vec::new(), result: Outcome::Unknown, head });
    }
    let mut calls = String::new();
    for number in 0..count {
        let _ = writeln!(calls, "\tBEGIN(); g_{number}(0);");
    }
    let threads = if dice.percent(40) { 3 } else { 1 };
    let fibres = if stacks == Stacks::Own { 0 } else { 2 + dice.below(4) };
    let apart = if stacks == Stacks::Near { "1 << 17" } else { "8 << 20" };
    let source = format!(
        "{HEAD}\n{heads}\n{bodies}\nvoid calls(void)\n{{\n{calls}}}\n\n\
         int main(int argc, char **argv) {{ return runs({threads}, {fibres}, {apart}, argv[argc - 1]); }}\n"
    );
    Planned { source, functions, stacks_are_close: stacks == Stacks::Near }
}
