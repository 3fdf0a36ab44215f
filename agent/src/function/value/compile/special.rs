//! Values that hold text or elements behind a pointer, and Go's interfaces, as bytecode.

use agent_common::function::{compare, op};

use super::super::emit::{Base, LENGTH_SLOT, known};
use super::super::kinds::{self, Kind};
use super::super::show::{Message, Show};
use super::{Compiler, FIRST_ADDRESS, IMAGE_MAX, Level};
use crate::inspect::dwarf::place::Unreadable;
use crate::inspect::dwarf::types::TypeNo;

/// Most bytes of a Go type's name that are read.
const TYPE_NAME_BYTES: i32 = 96;

impl Compiler<'_> {
    /// What was recognised by its type's name.
    pub(super) fn special(
        &mut self,
        kind: Kind,
        bytes: u64,
        base: Base<'_>,
        at: u64,
        level: Level,
    ) -> Show {
        if level.plain || level.slot >= LENGTH_SLOT {
            return Show::Unavailable(Unreadable::Room);
        }
        let whole = match kind {
            Kind::ShortString { .. } => known(base, at, bytes),
            _ => known(base, at, bytes.min(16)),
        };
        if let Err(reason) = whole {
            return Show::Unavailable(reason);
        }
        let mark = self.out.mark();
        let shown = match kind {
            Kind::Plain => Err(Unreadable::Type),
            Kind::Text { pointer_at, length_at } => self
                .text(base, at, pointer_at, length_at)
                .map(|chunk| Show::Text { chunk, length_at, length_bytes: 8, shift: 0 }),
            Kind::Slice { pointer_at, length_at, of } => {
                self.slice(base, at, pointer_at, length_at, of, level)
            }
            Kind::Span { from_at, to_at, of } => self.span(base, at, from_at, to_at, of, level),
            Kind::ShortString { .. } => self.short_string(kind, base, at),
            Kind::Interface { methods } => self.interface(base, at, methods, level),
        };
        match shown {
            Ok(show) if self.out.fits() => show,
            _ => {
                self.out.back(mark);
                Show::Unavailable(Unreadable::Room)
            }
        }
    }

    /// Characters by address and number, in a chunk.
    fn text(
        &mut self,
        base: Base<'_>,
        at: u64,
        pointer_at: u64,
        length_at: u64,
    ) -> Result<u16, Unreadable> {
        let most = i32::from(self.options.string_bytes);
        let chunk = self.out.chunk(most as usize);
        self.out.number(base, at + length_at, 8)?;
        self.out.op(op::SAVE, LENGTH_SLOT, 0, 0);
        self.out.number(base, at + pointer_at, 8)?;
        let jump = self.out.skip_if(compare::LT, FIRST_ADDRESS);
        self.out.op(op::COPY_COUNTED, LENGTH_SLOT, 1, most);
        self.out.land(jump);
        Ok(chunk)
    }

    fn slice(
        &mut self,
        base: Base<'_>,
        at: u64,
        pointer_at: u64,
        length_at: u64,
        of: TypeNo,
        level: Level,
    ) -> Result<Show, Unreadable> {
        let stride = self.types.size(of);
        let element = self.types.bare(of).1;
        if kinds::is_byte(element) {
            let chunk = self.text(base, at, pointer_at, length_at)?;
            return Ok(Show::Text { chunk, length_at, length_bytes: 8, shift: 0 });
        }
        // Without elements that can be shown, the number of them is still worth telling.
        let of_show = self.element(of, level);
        let most =
            (u64::from(self.options.elements) * stride).min(IMAGE_MAX) / stride.max(1) * stride;
        let stride32 = u32::try_from(stride).map_err(|_| Unreadable::Room)?;
        let chunk = self.out.chunk(most as usize);
        if most > 0 && !matches!(of_show, Show::Unavailable(_)) {
            self.out.number(base, at + length_at, 8)?;
            self.out.op(op::SAVE, LENGTH_SLOT, 0, 0);
            self.out.number(base, at + pointer_at, 8)?;
            let jump = self.out.skip_if(compare::LT, FIRST_ADDRESS);
            let width = u16::try_from(stride).map_err(|_| Unreadable::Room)?;
            self.out.op(op::COPY_COUNTED, LENGTH_SLOT, width, most as i32);
            self.out.land(jump);
        }
        Ok(Show::Slice { chunk, length_at, stride: stride32, of: Box::new(of_show) })
    }

    fn span(
        &mut self,
        base: Base<'_>,
        at: u64,
        from_at: u64,
        to_at: u64,
        of: TypeNo,
        level: Level,
    ) -> Result<Show, Unreadable> {
        let stride = self.types.size(of);
        let stride32 = u32::try_from(stride).ok().filter(|stride| *stride > 0);
        let stride32 = stride32.ok_or(Unreadable::Type)?;
        let of_show = self.element(of, level);
        // How many there are is not known before the hit is read: one is there if any is.
        let most = stride.min(IMAGE_MAX);
        let chunk = self.out.chunk(most as usize);
        if stride <= IMAGE_MAX && !matches!(of_show, Show::Unavailable(_)) {
            self.out.number(base, at + from_at, 8)?;
            let jump = self.out.skip_if(compare::LT, FIRST_ADDRESS);
            self.out.op(op::COPY, 0, 0, most as i32);
            self.out.land(jump);
        }
        Ok(Show::Span { chunk, from_at, to_at, stride: stride32, of: Box::new(of_show) })
    }

    /// How elements behind a pointer are shown: alike, so nothing of theirs is followed.
    fn element(&mut self, of: TypeNo, level: Level) -> Show {
        let level = Level { depth: 0, ..level.inner() }.plain();
        self.show(of, Base::Slot(0), 0, level).unwrap_or_else(Show::Unavailable)
    }

    fn short_string(&mut self, kind: Kind, base: Base<'_>, at: u64) -> Result<Show, Unreadable> {
        let Kind::ShortString {
            long_bit_at,
            long_mask,
            data_at,
            size_at,
            inline_at,
            inline_bytes,
            size_shift,
        } = kind
        else {
            return Err(Unreadable::Type);
        };
        let most = i32::from(self.options.string_bytes);
        let chunk = self.out.chunk(most as usize);
        self.out.number(base, at + long_bit_at, 1)?;
        self.out.op(op::AND, 0, 0, long_mask.into());
        let short = self.out.skip_if(compare::EQ, 0);
        self.out.number(base, at + size_at, 8)?;
        self.out.op(op::SAVE, LENGTH_SLOT, 0, 0);
        self.out.number(base, at + data_at, 8)?;
        let jump = self.out.skip_if(compare::LT, FIRST_ADDRESS);
        self.out.op(op::COPY_COUNTED, LENGTH_SLOT, 1, most);
        self.out.land(jump);
        self.out.land(short);
        let text = Show::Text { chunk, length_at: size_at, length_bytes: 8, shift: 0 };
        Ok(Show::ShortString {
            long_bit_at,
            long_mask,
            size_at: long_bit_at,
            size_shift,
            inline_at,
            inline_bytes,
            text: Box::new(text),
        })
    }

    /// Go's interface: its type's descriptor, the name in it, and the text of the commonest errors
    /// (`abi.Type` and `abi.Name` of Go's `internal/abi`).
    fn interface(
        &mut self,
        base: Base<'_>,
        at: u64,
        methods: bool,
        level: Level,
    ) -> Result<Show, Unreadable> {
        const DESCRIPTOR_BYTES: i32 = 48;
        const NAME_OFFSET_AT: i32 = 40;
        let descriptor = self.out.chunk(DESCRIPTOR_BYTES as usize);
        self.out.number(base, at, 8)?;
        let nil = self.out.skip_if(compare::LT, FIRST_ADDRESS);
        if methods {
            self.out.op(op::ADD, 0, 0, 8);
            self.out.op(op::LOAD, 0, 8, 0);
        }
        self.out.op(op::SAVE, level.slot, 0, 0);
        self.out.op(op::COPY, 0, 0, DESCRIPTOR_BYTES);
        let types = self.go_types.and_then(|types| i32::try_from(types).ok());
        let mut name = None;
        if let Some(types) = types {
            name = Some(self.out.chunk(TYPE_NAME_BYTES as usize));
            self.out.op(op::RECALL, level.slot, 0, 0);
            self.out.op(op::ADD, 0, 0, NAME_OFFSET_AT);
            self.out.op(op::LOAD, 0, 4, 0);
            self.out.op(op::ADD, 0, 0, types);
            self.out.op(op::COPY, 0, 0, TYPE_NAME_BYTES);
        }
        let mark = self.out.mark();
        let message =
            if methods && name.is_some() { self.message(base, at, level).ok() } else { None };
        let message = message.filter(|_| self.out.fits());
        if message.is_none() {
            self.out.back(mark);
        }
        self.out.land(nil);
        Ok(Show::Interface { descriptor, name, message })
    }

    /// The string that begins the value in an interface.
    fn message(&mut self, base: Base<'_>, at: u64, level: Level) -> Result<Message, Unreadable> {
        let most = i32::from(self.options.string_bytes);
        let header = self.out.chunk(16);
        self.out.number(base, at + 8, 8)?;
        self.out.op(op::SAVE, level.slot, 0, 0);
        self.out.op(op::COPY, 0, 0, 16);
        let text = self.out.chunk(most as usize);
        self.out.number(Base::Slot(level.slot), 8, 8)?;
        self.out.op(op::SAVE, LENGTH_SLOT, 0, 0);
        self.out.number(Base::Slot(level.slot), 0, 8)?;
        let jump = self.out.skip_if(compare::LT, FIRST_ADDRESS);
        self.out.op(op::COPY_COUNTED, LENGTH_SLOT, 1, most);
        self.out.land(jump);
        Ok(Message { header, text })
    }
}
