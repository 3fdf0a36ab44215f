//! The handlers of a method, as the interpreter has them: what an exception that is handled by one of them
//! has come to (`constMethod.hpp`).

/// How much is copied of the end of a method's constant part.
pub(super) const END_BYTES: usize = 512;

/// Bits of its flags, as the virtual machine's table of constants names them.
pub(super) const FLAGS: [(&str, u16); 8] = [
    ("has_checked_exceptions", CHECKED_EXCEPTIONS),
    ("has_exception_table", EXCEPTION_TABLE),
    ("has_generic_signature", GENERIC_SIGNATURE),
    ("has_method_parameters", METHOD_PARAMETERS),
    ("has_method_annotations", ANNOTATIONS[0]),
    ("has_parameter_annotations", ANNOTATIONS[1]),
    ("has_type_annotations", ANNOTATIONS[2]),
    ("has_default_annotations", ANNOTATIONS[3]),
];

const CHECKED_EXCEPTIONS: u16 = 1 << 1;
const EXCEPTION_TABLE: u16 = 1 << 3;
const GENERIC_SIGNATURE: u16 = 1 << 4;
const METHOD_PARAMETERS: u16 = 1 << 5;
const ANNOTATIONS: [u16; 4] = [1 << 7, 1 << 8, 1 << 9, 1 << 10];

/// Bytes of a parameter, of an exception that a method declares, and of a handler: where it begins to
/// hold, where that ends, where it is itself, and what it is for.
const PARAMETER: usize = 4;
const DECLARED: usize = 2;
const HANDLER: usize = 8;

/// The constant part of a method.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method<'a> {
    /// Its flags.
    pub(super) flags: u16,
    /// How long its code is.
    pub(super) code_bytes: u16,
    /// What it ends with: a table of handlers and others behind it, each with its length behind itself.
    pub(super) end: &'a [u8],
}

impl Method<'_> {
    /// Whether the handler at this place of the code is for exceptions of a type, and not for whatever may
    /// come (`finally`, the end of `synchronized`). `None`: that is not known.
    pub(super) fn is_for_type(&self, at: u16) -> Option<bool> {
        let has = |flag| self.flags & flag != 0;
        if at >= self.code_bytes || !has(EXCEPTION_TABLE) {
            return None;
        }
        let annotations = ANNOTATIONS.iter().filter(|flag| has(**flag)).count();
        let mut rest = self.end.get(..self.end.len().checked_sub(8 * annotations)?)?;
        if has(GENERIC_SIGNATURE) {
            rest = rest.get(..rest.len().checked_sub(2)?)?;
        }
        if has(METHOD_PARAMETERS) {
            (_, rest) = table(rest, PARAMETER)?;
        }
        if has(CHECKED_EXCEPTIONS) {
            (_, rest) = table(rest, DECLARED)?;
        }
        let (handlers, _) = table(rest, HANDLER)?;
        let mut found = None;
        for handler in handlers.as_chunks::<HANDLER>().0 {
            let [s0, s1, e0, e1, h0, h1, t0, t1] = *handler;
            let [start, end, own, kind] =
                [[s0, s1], [e0, e1], [h0, h1], [t0, t1]].map(u16::from_le_bytes);
            // It would be no table.
            if start >= end || end > self.code_bytes || own >= self.code_bytes {
                return None;
            }
            if own == at {
                let is_for_type = kind != 0;
                if found.is_some_and(|known| known != is_for_type) {
                    return None;
                }
                found = Some(is_for_type);
            }
        }
        found
    }
}

/// The table that bytes end with, and what is before it.
fn table(bytes: &[u8], item: usize) -> Option<(&[u8], &[u8])> {
    let (before, length) = bytes.split_last_chunk::<2>()?;
    let bytes = usize::from(u16::from_le_bytes(*length)) * item;
    let (rest, items) = before.split_at_checked(before.len().checked_sub(bytes)?)?;
    Some((items, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Two handlers for types at 20, one for whatever comes at 30, and both at 40.
    const HANDLERS: [u16; 21] =
        [0, 8, 20, 5, 0, 8, 20, 6, 0, 12, 30, 0, 2, 4, 40, 7, 2, 4, 40, 0, 5];

    fn check(flags: u16, behind: &[u16], at: u16) -> Option<bool> {
        // What was copied begins before the table.
        let end = bytes(&[&[0xffff; 4], &HANDLERS[..], behind].concat());
        Method { flags: flags | EXCEPTION_TABLE, code_bytes: 50, end: &end }.is_for_type(at)
    }

    #[test]
    fn handlers_are_for_types_or_for_whatever_comes() {
        for (at, expected) in [(20, Some(true)), (30, Some(false)), (40, None), (41, None)] {
            assert_eq!(check(0, &[], at), expected, "{at}");
        }
        let end = bytes(&HANDLERS);
        let method = Method { flags: 0, code_bytes: 50, end: &end };
        assert_eq!(method.is_for_type(20), None, "it has no handlers");
        let method = Method { flags: EXCEPTION_TABLE, code_bytes: 50, end: &end[2..] };
        assert_eq!(method.is_for_type(20), None, "not all of them are there");
        let method = Method { flags: EXCEPTION_TABLE, code_bytes: 39, end: &end };
        assert_eq!(method.is_for_type(20), None, "one lies behind the code");
    }

    #[test]
    fn other_tables_may_lie_behind() {
        let (signature, parameters, declared) = ([9], [1, 2, 3, 4, 2], [7, 8, 9, 3]);
        for (flags, behind) in [
            (GENERIC_SIGNATURE, signature.to_vec()),
            (METHOD_PARAMETERS, parameters.to_vec()),
            (CHECKED_EXCEPTIONS, declared.to_vec()),
            (CHECKED_EXCEPTIONS | METHOD_PARAMETERS, [&declared[..], &parameters].concat()),
            (
                CHECKED_EXCEPTIONS | METHOD_PARAMETERS | GENERIC_SIGNATURE | ANNOTATIONS[2],
                [&declared[..], &parameters, &signature, &[1, 2, 3, 4]].concat(),
            ),
            (ANNOTATIONS[0] | ANNOTATIONS[3], vec![0; 8]),
        ] {
            assert_eq!(check(flags, &behind, 20), Some(true), "{flags:#x}");
            assert_eq!(check(flags, &behind, 30), Some(false), "{flags:#x}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(
            end in prop::collection::vec(any::<u8>(), 0..600),
            (flags, code_bytes, at) in any::<(u16, u16, u16)>(),
        ) {
            let _ = Method { flags, code_bytes, end: &end }.is_for_type(at);
        }
    }
}
