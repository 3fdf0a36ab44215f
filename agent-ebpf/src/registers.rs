//! The registers of a probed task. The kernel hands a uprobe program a copy of `struct pt_regs`, whose
//! layout is fixed by its UAPI.

use core::ffi::c_void;
use core::ptr;

/// How many registers there are by DWARF's numbering, rounded up so that a mask is a check.
pub const COUNT: usize = 32;

/// A program's context.
#[derive(Clone, Copy)]
pub struct Registers(*mut c_void);

impl Registers {
    /// Of the program that was given `ctx`.
    #[inline(always)]
    pub fn new(ctx: *mut c_void) -> Self {
        Self(ctx)
    }

    /// The word at `offset`, a constant.
    #[inline(always)]
    fn word(self, offset: usize) -> u64 {
        // SAFETY: the program's context; the verifier checks the offset.
        unsafe { ptr::read_volatile(self.0.cast::<u8>().add(offset).cast::<u64>()) }
    }
}

#[cfg(bpf_target_arch = "x86_64")]
mod x86_64 {
    use agent_common::function::condition;

    use super::Registers;

    /// Where DWARF's registers 0 to 16 lie in `struct pt_regs`.
    const OFFSETS: [usize; 17] =
        [80, 96, 88, 40, 104, 112, 32, 152, 72, 64, 56, 48, 24, 16, 8, 0, 128];
    const FLAGS: usize = 144;
    const RSP: usize = 152;
    const R14: usize = 8;

    impl Registers {
        /// The stack pointer.
        #[inline(always)]
        pub fn stack_pointer(self) -> u64 {
            self.word(RSP)
        }

        /// Whether what a site stands for happens: whether its jump is taken, by the flags that the kernel
        /// looks at when it emulates that, a moment later.
        #[inline(always)]
        pub fn meet(self, condition: u8) -> bool {
            let flags = self.word(FLAGS);
            let bit = |number: u64| flags >> number & 1;
            let [carry, parity, zero, sign, overflow] = [bit(0), bit(2), bit(6), bit(7), bit(11)];
            let less = sign ^ overflow;
            // All of them rather than a choice, of which the verifier would follow each way.
            let pairs = overflow
                | carry << 1
                | zero << 2
                | (carry | zero) << 3
                | sign << 4
                | parity << 5
                | less << 6
                | (zero | less) << 7;
            // Two codes are one condition and its opposite.
            let code = u64::from(condition & condition::CODE_MASK);
            condition == condition::ALWAYS || (pairs >> (code >> 1) ^ code) & 1 == 1
        }

        /// Where Go keeps its `g`.
        #[inline(always)]
        pub fn goroutine(self) -> u64 {
            self.word(R14)
        }

        /// All of them, by DWARF's numbers.
        #[inline(always)]
        pub fn copy_to<const COUNT: usize>(self, to: &mut [u64; COUNT]) {
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q] = OFFSETS;
            to[0] = self.word(a);
            to[1] = self.word(b);
            to[2] = self.word(c);
            to[3] = self.word(d);
            to[4] = self.word(e);
            to[5] = self.word(f);
            to[6] = self.word(g);
            to[7] = self.word(h);
            to[8] = self.word(i);
            to[9] = self.word(j);
            to[10] = self.word(k);
            to[11] = self.word(l);
            to[12] = self.word(m);
            to[13] = self.word(n);
            to[14] = self.word(o);
            to[15] = self.word(p);
            to[16] = self.word(q);
        }
    }
}

#[cfg(bpf_target_arch = "aarch64")]
mod aarch64 {
    use agent_common::function::condition;

    use super::Registers;

    /// `user_pt_regs.sp`, behind 31 registers.
    const SP: usize = 31 * 8;
    /// `x28`, where Go keeps its `g`.
    const X28: usize = 28 * 8;

    impl Registers {
        /// The stack pointer.
        #[inline(always)]
        pub fn stack_pointer(self) -> u64 {
            self.word(SP)
        }

        /// Whether what a site stands for happens. No jump of this architecture is one: user space does not
        /// follow its code.
        #[inline(always)]
        pub fn meet(self, condition: u8) -> bool {
            condition == condition::ALWAYS
        }

        /// Where Go keeps its `g`.
        #[inline(always)]
        pub fn goroutine(self) -> u64 {
            self.word(X28)
        }

        /// All that have room: DWARF numbers them as they lie there.
        #[inline(always)]
        pub fn copy_to<const COUNT: usize>(self, to: &mut [u64; COUNT]) {
            for (index, register) in to.iter_mut().enumerate() {
                *register = self.word(index * 8);
            }
        }
    }
}
