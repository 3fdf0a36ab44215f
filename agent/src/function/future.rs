//! Async Rust: a call of an async function's body is one poll of its future. Which future that is, its
//! address says, so that its polls can be put together.

use agent_common::function::{Op, op, register};

use crate::inspect::dwarf::{Described, Language};

/// The chunk that holds the address; beyond the numbers that values have.
const CHUNK: u16 = 0x7fff;

/// What reads the address of the future that is polled, for the beginning of an entry's code; `None` if
/// the function is no body of an async function or block.
pub fn code(described: &Described) -> Option<[Op; 3]> {
    let first = described.parameters.first().filter(|_| described.language == Language::Rust)?;
    let name = &described.types.get(first.ty).name;
    // rustc's names for what an async body becomes, `{async_fn_env#0}`, and how it is polled.
    if !(name.starts_with("Pin<&mut ") && name.contains("{async_")) {
        return None;
    }
    let op = |code, a, b, imm| Op { code, a, b, imm };
    Some([
        op(op::CHUNK, 0, 0, i32::from(CHUNK)),
        op(op::REGISTER, register::RDI, 0, 0),
        op(op::PUT, 0, 8, 0),
    ])
}

/// The address that an entry has told.
pub fn read(chunks: &[u8]) -> Option<u64> {
    let (head, behind) = chunks.split_first_chunk::<8>()?;
    let [n0, n1, _, _, 8, 0, 0, 0] = *head else { return None };
    let is_it = u16::from_ne_bytes([n0, n1]) == CHUNK;
    let (address, _) = behind.split_first_chunk::<8>().filter(|_| is_it)?;
    Some(u64::from_ne_bytes(*address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_or_there_is_none() {
        let mut chunks = vec![0xff, 0x7f, 0, 0, 8, 0, 0, 0];
        chunks.extend(7u64.to_ne_bytes());
        chunks.extend([1, 2, 3]);
        assert_eq!(read(&chunks), Some(7));
        for cut in 0..16 {
            assert_eq!(read(&chunks[..cut]), None);
        }
        chunks[0] = 0;
        assert_eq!(read(&chunks), None);
    }
}
