//! What the kernel makes of a probe on an instruction (`arch/x86/kernel/uprobes.c`).
//!
//! The tables of instructions that it takes have only grown; ours are those of the oldest kernels, less
//! what is of no use to us. What newer ones emulate and older ones step costs more there and harms
//! nothing.

/// How a probed instruction runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handling {
    /// The kernel does what it says.
    Emulated,
    /// The processor runs a copy of it, then traps.
    Stepped,
    /// The kernel takes no probe there, or the probe could do harm.
    Refused,
}

const PREFIX_BAD: [u8; 5] = [0x26, 0x2e, 0x36, 0x3e, 0xf0];
const PREFIX_OTHER: [u8; 6] = [0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3];

/// Looks at one whole instruction.
pub(super) fn handling(instruction: &[u8]) -> Handling {
    let is_prefix = |byte: &&u8| PREFIX_BAD.contains(byte) || PREFIX_OTHER.contains(byte);
    let count = instruction.iter().take_while(is_prefix).count();
    let (prefixes, rest) = instruction.split_at(count);
    if prefixes.iter().any(|prefix| PREFIX_BAD.contains(prefix)) {
        return Handling::Refused;
    }
    let (rex, code) = match rest {
        [rex @ 0x40..=0x4f, code @ ..] => (Some(*rex), code),
        code => (None, code),
    };
    let narrow = prefixes.contains(&0x66);
    let is_repeated = prefixes.iter().any(|prefix| matches!(prefix, 0xf2 | 0xf3));
    match *code {
        // A NOP of five bytes may be replaced by a call (Linux 6.18), which writes below the stack
        // pointer, where leaf functions keep data. `pause` is one byte more than a NOP.
        [0x90] | [0x0f, 0x1f, ..] if instruction.len() == 5 => Handling::Refused,
        // With REX.B it is an exchange of r8 and rax, which the kernel takes for a NOP.
        [0x90] if rex.is_none_or(|rex| rex & 1 == 0) => Handling::Emulated,
        [0x90] => Handling::Refused,
        // Since Linux 6.18 in all sizes; stepped before.
        [0x0f, 0x1f, ..] => Handling::Emulated,
        [0x50..=0x57] => match (prefixes, rex) {
            ([], None | Some(0x41)) => Handling::Emulated,
            _ => Handling::Stepped,
        },
        // Jumps and calls to relative addresses; with an operand size prefix the vendors disagree.
        [0xeb | 0xe9 | 0xe8 | 0x70..=0x7f, ..] | [0x0f, 0x80..=0x8f, ..] if narrow => {
            Handling::Refused
        }
        [0xeb | 0xe9 | 0xe8 | 0x70..=0x7f, ..] | [0x0f, 0x80..=0x8f, ..] => Handling::Emulated,
        // A step sets the trap flag, which is what would be stored; a `popf` that takes it back kills.
        [0x9c] => Handling::Refused,
        // A repeated string instruction traps after each turn, and each turn would be a hit.
        [0x6c..=0x6f | 0xa4..=0xa7 | 0xaa..=0xaf] if is_repeated => Handling::Refused,
        // The trap behind a transaction's beginning aborts it, and where it goes on then is relative to
        // the copy.
        [0xc6 | 0xc7, 0xf8, ..] => Handling::Refused,
        [0x0f, second, ..] => bit(&TWO_BYTES, second),
        // Loading the stack segment holds the trap back that ends the step.
        [0x8e, ..] => Handling::Refused,
        [first, ..] => bit(&ONE_BYTE, first),
        [] => Handling::Refused,
    }
}

fn bit(table: &[u16; 16], byte: u8) -> Handling {
    let row = table.get(usize::from(byte >> 4)).copied().unwrap_or_default();
    if row >> (15 - (byte & 15)) & 1 == 1 { Handling::Stepped } else { Handling::Refused }
}

/// A row for each upper half of the opcode, its bits from the left for the lower half.
/// Vector instructions with their own prefixes (c4, c5, 62) are left out: only newer kernels know them.
const ONE_BYTE: [u16; 16] = [
    0b1111_1100_1111_1100, // 0
    0b1111_1100_1111_1100, // 1
    0b1111_1100_1111_1100, // 2
    0b1111_1100_1111_1100, // 3
    0b0000_0000_0000_0000, // 4
    0b1111_1111_1111_1111, // 5
    0b0001_1100_1111_0000, // 6
    0b1111_1111_1111_1111, // 7
    0b1101_1111_1111_1111, // 8
    0b1111_1111_1111_1111, // 9
    0b1111_1111_1111_1111, // a
    0b1111_1111_1111_1111, // b
    0b1111_0011_1111_0000, // c
    0b1111_0001_1111_1111, // d
    0b1111_0000_1111_0000, // e
    0b0011_0111_1100_1111, // f
];

const TWO_BYTES: [u16; 16] = [
    0b0000_0000_0000_0011, // 0
    0b1111_1111_0111_1111, // 1
    0b1111_0000_1111_1111, // 2
    0b0111_0000_0000_0000, // 3
    0b1111_1111_1111_1111, // 4
    0b1111_1111_1111_1111, // 5
    0b1111_1111_1111_1111, // 6
    0b1111_1111_0000_0011, // 7
    0b1111_1111_1111_1111, // 8
    0b1111_1111_1111_1111, // 9
    0b1111_1100_1111_1101, // a
    0b1111_1111_0111_1111, // b
    0b1111_1111_1111_1111, // c
    0b0111_1111_1111_1111, // d
    0b1111_1111_1111_1111, // e
    0b0111_1111_1111_1110, // f
];

#[cfg(test)]
mod tests {
    use super::Handling::{self, Emulated, Refused, Stepped};

    #[test]
    fn instructions_are_told_apart() {
        for (bytes, expected) in [
            (&[0x55][..], Emulated),                                   // push rbp
            (&[0x41, 0x57], Emulated),                                 // push r15
            (&[0x48, 0x55], Stepped),                                  // push rbp, REX.W
            (&[0x66, 0x50], Stepped),                                  // push ax
            (&[0x90], Emulated),                                       // nop
            (&[0xf3, 0x90], Emulated),                                 // pause
            (&[0x41, 0x90], Refused),                                  // xchg r8, rax
            (&[0x66, 0x90], Emulated),                                 // nop of 2
            (&[0x0f, 0x1f, 0x40, 0x00], Emulated),                     // nop of 4
            (&[0x0f, 0x1f, 0x44, 0x00, 0x00], Refused),                // nop of 5
            (&[0x66, 0x66, 0x66, 0x66, 0x90], Refused),                // nop of 5
            (&[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], Refused), // nop of 10
            (&[0xeb, 0x00], Emulated),                                 // jmp
            (&[0xe9, 0, 0, 0, 0], Emulated),                           // jmp
            (&[0xf2, 0xe9, 0, 0, 0, 0], Emulated),                     // bnd jmp
            (&[0xe8, 0, 0, 0, 0], Emulated),                           // call
            (&[0x74, 0x10], Emulated),                                 // je
            (&[0x0f, 0x84, 0, 0, 0, 0], Emulated),                     // je
            (&[0x66, 0x74, 0x10], Refused),                            // je, operand size
            (&[0x2e, 0x74, 0x10], Refused),                            // je, hint
            (&[0xc3], Stepped),                                        // ret
            (&[0xf3, 0xc3], Stepped),                                  // rep ret
            (&[0xc2, 8, 0], Stepped),                                  // ret 8
            (&[0xff, 0xe0], Stepped),                                  // jmp rax
            (&[0x3e, 0xff, 0xe0], Refused),                            // notrack jmp rax
            (&[0xf3, 0x0f, 0x1e, 0xfa], Stepped),                      // endbr64
            (&[0x48, 0x83, 0xec, 0x08], Stepped),                      // sub rsp, 8
            (&[0xf0, 0x0f, 0xb1, 0x0f], Refused),                      // lock cmpxchg
            (&[0x9c], Refused),                                        // pushf
            (&[0x66, 0x9c], Refused),                                  // pushf of 16 bits
            (&[0x9d], Stepped),                                        // popf
            (&[0xaa], Stepped),                                        // stosb
            (&[0xf3, 0xaa], Refused),                                  // rep stosb
            (&[0xf3, 0x48, 0xa5], Refused),                            // rep movsq
            (&[0xf2, 0xae], Refused),                                  // repne scasb
            (&[0xc7, 0xf8, 0, 0, 0, 0], Refused),                      // xbegin
            (&[0xc6, 0xf8, 0], Refused),                               // xabort
            (&[0xc7, 0x00, 0, 0, 0, 0], Stepped),                      // mov dword [rax], 0
            (&[0x0f, 0x05], Refused),                                  // syscall
            (&[0x0f, 0x0b], Refused),                                  // ud2
            (&[0xcc], Refused),                                        // int3
            (&[0xf4], Refused),                                        // hlt
            (&[0xc5, 0xf8, 0x77], Refused),                            // vzeroupper
            (&[0x62, 0xf1, 0x7c, 0x48, 0x10, 0x00], Refused),          // vmovups zmm
            (&[0x8e, 0xd0], Refused),                                  // mov ss, eax
            (&[0x0f, 0xa2], Stepped),                                  // cpuid
            (&[], Refused),
        ] {
            let handling: Handling = super::handling(bytes);
            assert_eq!(handling, expected, "{bytes:02x?}");
        }
    }
}
