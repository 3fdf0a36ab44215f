//! How the code of a hook finds things in the virtual machine. Its tables of where they lie are only filled
//! in when the library is loaded, so that the code looks there whenever it is hit.

use agent_common::function::register;

use super::super::code::{Code, Jump};
use super::tables::{Offset, Tables, Variable};
use crate::inspect::address::VirtAddr;

/// The slot that is used on the way to a field.
const WAY: u8 = 3;

/// By how many bits references to classes may be shifted, 0 aside.
const CLASS_SHIFTS: [i32; 4] = [3, 6, 8, 10];

/// In an array: its first item, behind eight bytes, the reference to the class and the length.
pub(super) const ITEMS: i32 = 16;

/// By how many references to objects are, 0 aside: objects that lie at multiples of eight.
const OBJECT_SHIFT: i32 = 3;

/// A library, as the code of a hook sees it.
#[derive(Clone, Copy)]
pub(super) struct Machine<'a> {
    pub(super) tables: &'a Tables,
    /// The hook's probe.
    pub(super) hook: VirtAddr,
}

impl Machine<'_> {
    /// The accumulator becomes the `bytes` at an address of the library.
    pub(super) fn load(&self, code: &mut Code, at: VirtAddr, bytes: u16) -> Option<()> {
        let distance = at.0.wrapping_sub(self.hook.0).cast_signed();
        code.register(register::RIP).load(i32::try_from(distance).ok()?, bytes);
        Some(())
    }

    /// The accumulator, which points at an object, comes to point at a field of it.
    pub(super) fn to(&self, code: &mut Code, Offset(at): Offset) -> Option<()> {
        code.save(WAY);
        self.load(code, at, 8)?;
        code.add_slot(WAY);
        Some(())
    }

    /// The accumulator comes to point at a field of the object that a slot points at.
    pub(super) fn field(&self, code: &mut Code, slot: u8, Offset(at): Offset) -> Option<()> {
        self.load(code, at, 8)?;
        code.add_slot(slot);
        Some(())
    }

    /// As [`field`](Self::field), where the offset is a variable of four bytes.
    pub(super) fn java_field(&self, code: &mut Code, slot: u8, at: VirtAddr) -> Option<()> {
        self.load(code, at, 4)?;
        code.add_slot(slot);
        Some(())
    }

    /// The accumulator, which points at an object, becomes what a field of it holds.
    pub(super) fn follow(&self, code: &mut Code, field: Offset) -> Option<()> {
        self.to(code, field)?;
        code.follow(0);
        Some(())
    }
}

/// How references between objects are written.
pub(super) struct References {
    are_short: VirtAddr,
    base: VirtAddr,
    shift: VirtAddr,
}

impl References {
    pub(super) fn find(machine: &Machine<'_>) -> Option<Self> {
        let of = |fields: &[&str]| machine.tables.address("CompressedOops", fields);
        Some(Self {
            are_short: machine.tables.variable(Variable::ShortReferences)?,
            base: of(&["_narrow_oop._base", "_base"])?,
            shift: of(&["_narrow_oop._shift", "_shift"])?,
        })
    }

    /// Jumps where references are written in a way that is not known.
    pub(super) fn check(&self, code: &mut Code, machine: &Machine<'_>) -> Option<Jump> {
        machine.load(code, self.shift, 4)?;
        let unshifted = code.jump_if(0);
        let other = code.jump_unless(OBJECT_SHIFT);
        code.land(unshifted);
        Some(other)
    }

    /// The accumulator, which points at a reference, becomes the object's address. Jumps where there is
    /// none. Slot 2 changes.
    pub(super) fn follow(&self, code: &mut Code, machine: &Machine<'_>) -> Option<Jump> {
        code.save(2);
        machine.load(code, self.are_short, 1)?;
        let is_long = code.jump_unless(1);
        code.recall(2).load(0, 4);
        let none = code.jump_if(0);
        code.save(2);
        machine.load(code, self.shift, 4)?;
        let unshifted = code.jump_if(0);
        code.recall(2).shift_left(OBJECT_SHIFT).save(2);
        code.land(unshifted);
        machine.load(code, self.base, 8)?;
        code.add_slot(2);
        let done = code.jump();
        code.land(is_long);
        code.recall(2).follow(0);
        code.land(done);
        Some(none)
    }
}

/// How an object says of which class it is, and an array how long it is.
pub(super) struct Headers {
    long: Offset,
    short: Offset,
    base: VirtAddr,
    shift: VirtAddr,
    /// Whether the reference to the class has four bytes.
    are_short: Option<VirtAddr>,
    /// Whether it lies within the object's first word, and by how many bits it is shifted there.
    are_compact: Option<(VirtAddr, i32)>,
}

impl Headers {
    pub(super) fn find(machine: &Machine<'_>) -> Option<Self> {
        let Machine { tables, .. } = machine;
        let of = |fields: &[&str]| tables.address("CompressedKlassPointers", fields);
        let are_compact = match tables.variable(Variable::CompactHeaders) {
            Some(flag) => Some((flag, tables.constant(&["markWord::klass_shift"])?)),
            None => None,
        };
        Some(Self {
            long: tables.offset("oopDesc", &["_metadata._klass"])?,
            short: tables.offset("oopDesc", &["_metadata._compressed_klass"])?,
            base: of(&["_narrow_klass._base", "_base"])?,
            shift: of(&["_narrow_klass._shift", "_shift"])?,
            are_short: tables.variable(Variable::ShortClasses),
            are_compact,
        })
    }

    /// The accumulator, which points at an object, becomes its class. Slots 0 to 3 change.
    pub(super) fn follow_class(&self, code: &mut Code, machine: &Machine<'_>) -> Option<()> {
        code.save(1);
        let mut found = Vec::new();
        let mut read = Vec::new();
        if let Some((flag, bits)) = self.are_compact {
            machine.load(code, flag, 1)?;
            let other = code.jump_unless(1);
            code.recall(1).follow(0).shift_right(bits).save(0);
            read.push(code.jump());
            code.land(other);
        }
        if let Some(flag) = self.are_short {
            machine.load(code, flag, 1)?;
            let other = code.jump_if(1);
            code.recall(1);
            machine.follow(code, self.long)?;
            found.push(code.jump());
            code.land(other);
        }
        code.recall(1);
        machine.to(code, self.short)?;
        code.load(0, 4).save(0);
        for jump in read {
            code.land(jump);
        }
        machine.load(code, self.shift, 4)?;
        code.save(2);
        for bits in CLASS_SHIFTS {
            code.recall(2);
            let other = code.jump_unless(bits);
            code.recall(0).shift_left(bits).save(0);
            code.land(other);
        }
        machine.load(code, self.base, 8)?;
        code.add_slot(0);
        for jump in found {
            code.land(jump);
        }
        Some(())
    }

    /// Slot 1, which points at an array, comes to point so far before its first item that [`ITEMS`] is
    /// the rest, and slot 2 becomes how many it has. Jumps where that is not known.
    pub(super) fn to_items(&self, code: &mut Code, machine: &Machine<'_>) -> Option<Jump> {
        // Behind a long reference to the class items begin at different places in different versions.
        machine.load(code, self.are_short?, 1)?;
        let unknown = code.jump_unless(1);
        if let Some((flag, _)) = self.are_compact {
            machine.load(code, flag, 1)?;
            let plain = code.jump_unless(1);
            code.recall(1).add(-4).save(1);
            code.land(plain);
        }
        code.recall(1).load(ITEMS - 4, 4).save(2);
        Some(unknown)
    }
}

/// Which objects there are: where they lie, until they are moved.
pub(super) struct Objects {
    heap: VirtAddr,
    collections: Offset,
    is_collecting: Offset,
    barriers: VirtAddr,
    rtti: Offset,
    tag: Offset,
    /// The collectors that move objects while everything else stands still, and count first: Serial and
    /// Parallel, and G1.
    counting: [i32; 2],
}

/// Chunks: how often objects had been moved, whether they are being, and how often they had been then.
pub(super) const COLLECTIONS: u16 = 50;
pub(super) const COLLECTING: u16 = 51;
pub(super) const COLLECTIONS_BEFORE: u16 = 52;

impl Objects {
    pub(super) fn find(machine: &Machine<'_>) -> Option<Self> {
        let Machine { tables, .. } = machine;
        let of_heap = |fields: &[&str]| tables.offset("CollectedHeap", fields);
        Some(Self {
            heap: tables.address("Universe", &["_collectedHeap"])?,
            collections: of_heap(&["_total_collections"])?,
            is_collecting: of_heap(&["_is_gc_active", "_is_stw_gc_active"])?,
            barriers: tables.address("BarrierSet", &["_barrier_set"])?,
            rtti: tables.offset("BarrierSet", &["_fake_rtti"])?,
            tag: tables.offset("BarrierSet::FakeRtti", &["_concrete_tag"])?,
            counting: [
                tables.constant(&["BarrierSet::CardTableBarrierSet"])?,
                tables.constant(&["BarrierSet::G1BarrierSet"])?,
            ],
        })
    }

    /// Tells in a chunk how often objects were moved.
    pub(super) fn tell(&self, code: &mut Code, machine: &Machine<'_>) -> Option<()> {
        code.chunk(COLLECTIONS);
        self.count(code, machine)
    }

    /// As [`tell`](Self::tell), if that is counted so that it says something.
    pub(super) fn tell_if_counting(&self, code: &mut Code, machine: &Machine<'_>) -> Option<()> {
        code.chunk(COLLECTIONS);
        machine.load(code, self.barriers, 8)?;
        machine.to(code, self.rtti)?;
        machine.to(code, self.tag)?;
        code.load(0, 4);
        let [first, second] = self.counting;
        let counts = code.jump_if(first);
        let other = code.jump_unless(second);
        code.land(counts);
        self.count(code, machine)?;
        code.land(other);
        Some(())
    }

    /// Tells before an object's place is read whether it may be moved meanwhile.
    pub(super) fn tell_before(&self, code: &mut Code, machine: &Machine<'_>) -> Option<()> {
        code.chunk(COLLECTIONS_BEFORE);
        self.count(code, machine)?;
        code.chunk(COLLECTING);
        machine.load(code, self.heap, 8)?;
        machine.to(code, self.is_collecting)?;
        code.load(0, 1).put(8);
        Some(())
    }

    fn count(&self, code: &mut Code, machine: &Machine<'_>) -> Option<()> {
        machine.load(code, self.heap, 8)?;
        machine.to(code, self.collections)?;
        code.load(0, 4).put(8);
        Some(())
    }
}
