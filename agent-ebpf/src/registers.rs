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
    use super::Registers;

    /// Where DWARF's registers 0 to 16 lie in `struct pt_regs`.
    const OFFSETS: [usize; 17] =
        [80, 96, 88, 40, 104, 112, 32, 152, 72, 64, 56, 48, 24, 16, 8, 0, 128];
    const RSP: usize = 152;
    const R14: usize = 8;

    impl Registers {
        /// The stack pointer.
        #[inline(always)]
        pub fn stack_pointer(self) -> u64 {
            self.word(RSP)
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
