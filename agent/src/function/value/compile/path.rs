//! What users name: the value that a path leads to, and conditions on such values.

use agent_common::function::{compare, op};

use super::{Compiler, Wanted};
use crate::function::value::emit::Base;
use crate::function::value::{Compare, CompileError, Condition, kinds};
use crate::inspect::dwarf::place::Unreadable;
use crate::inspect::dwarf::types::Shape;

impl<'d> Compiler<'d> {
    /// Follows a path to its value.
    pub(super) fn find(&self, path: &str) -> Result<Wanted<'d>, CompileError> {
        let missing = || CompileError::NoSuchValue { path: path.to_owned() };
        // The longest parameter that fits: names hold no dots, but Go's results may.
        let mut words = path.split('.');
        let name = words.next().ok_or_else(missing)?;
        let parameters = self.parameters;
        let parameter = parameters.iter().find(|p| &*p.name == name).ok_or_else(missing)?;
        let mut ty = parameter.ty;
        let mut steps = Vec::new();
        for word in words {
            if steps.is_empty() {
                steps.push(0);
            }
            let mut pointers = 0;
            while let Shape::Pointer { to, .. } = self.types.bare(ty).1.shape
                && pointers < 4
            {
                ty = to;
                pointers += 1;
            }
            steps.extend(std::iter::repeat_n(0, pointers));
            let (at, found) = kinds::path(self.types, ty, &[word]).ok_or_else(missing)?;
            ty = found;
            if let Some(last) = steps.last_mut() {
                *last += at;
            }
        }
        let place = parameter.place.as_ref().map_err(|reason| *reason);
        Ok(Wanted { name: path.to_owned(), ty, place, steps })
    }

    /// Drops the hit unless a value compares as asked.
    pub(super) fn condition(&mut self, condition: &Condition) -> Result<(), CompileError> {
        let value = self.find(&condition.path)?;
        let not = |reason| CompileError::NotComparable { path: condition.path.clone(), reason };
        let (_, bare) = self.types.bare(value.ty);
        let signed = match bare.shape {
            Shape::Int { signed } | Shape::Char { signed, .. } | Shape::Enum { signed, .. } => {
                signed
            }
            Shape::Bool | Shape::Pointer { .. } => false,
            Shape::Float => return Err(not(Unreadable::Float)),
            _ => return Err(not(Unreadable::Type)),
        };
        let bytes = u8::try_from(self.types.size(value.ty)).map_err(|_| not(Unreadable::Type))?;
        let place = value.place.map_err(not)?;
        let mut steps = value.steps.iter();
        let first = steps.next().copied().unwrap_or(0);
        let followed = value.steps.len() > 1;
        self.out
            .number(Base::Place(place), first, if followed { 8 } else { bytes })
            .map_err(not)?;
        while let Some(at) = steps.next() {
            self.out.add(*at as i64).map_err(not)?;
            let last = steps.len() == 0;
            self.out.op(op::LOAD, 0, if last { bytes.into() } else { 8 }, 0);
        }
        if signed && bytes < 8 {
            let above = 64 - 8 * i32::from(bytes);
            self.out.op(op::SHIFT, 0, 0, above);
            self.out.op(op::SHIFT, 2, 0, above);
        }
        let how = match (condition.compare, signed) {
            (Compare::Equal, _) => compare::EQ,
            (Compare::NotEqual, _) => compare::NE,
            (Compare::Less, true) => compare::LT_SIGNED,
            (Compare::Less, false) => compare::LT,
            (Compare::LessOrEqual, true) => compare::LE_SIGNED,
            (Compare::LessOrEqual, false) => compare::LE,
            (Compare::Greater, true) => compare::GT_SIGNED,
            (Compare::Greater, false) => compare::GT,
            (Compare::GreaterOrEqual, true) => compare::GE_SIGNED,
            (Compare::GreaterOrEqual, false) => compare::GE,
        };
        if !signed && condition.number < 0 {
            return Err(not(Unreadable::Type));
        }
        let jump = self.out.skip_if(how, condition.number);
        self.out.op(op::DROP, 0, 0, 0);
        self.out.land(jump);
        Ok(())
    }
}
