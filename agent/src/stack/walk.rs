//! Walks a copy of a stack from the innermost function outward.

use agent_common::function::IMAGE_MAX;

use super::code::Code;
use super::{FRAMES_MAX, Frame, Stack};
use crate::event::image::Image;
use crate::inspect::address::VirtAddr;
use crate::inspect::unwind::step::{Caller, Memory, Registers, StepError};

/// What a process has mapped.
pub trait Space {
    /// The module at an address, and which of the module's own addresses that is.
    fn code(&self, address: u64) -> Place<'_>;

    /// An address at which a frame is.
    fn is_at(&self, address: u64);
}

/// What is at an address.
pub enum Place<'a> {
    /// A module's code.
    Code(&'a Code, VirtAddr),
    /// A file's code of which nothing more can be said, and why.
    Unread(&'a str, VirtAddr, &'a str),
    /// Nothing that is known.
    Nothing,
}

impl Memory for Image<'_> {
    fn read(&self, address: u64, bytes: u8) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.stack_pointer())?).ok()?;
        let end = at.checked_add(usize::from(bytes))?;
        let mut word = [0; 8];
        word.get_mut(..usize::from(bytes))?.copy_from_slice(self.stack.get(at..end)?);
        Some(u64::from_le_bytes(word))
    }
}

impl Image<'_> {
    fn stack_pointer(&self) -> u64 {
        let [_, _, _, _, _, _, _, stack, ..] = self.registers;
        stack
    }
}

/// Walks a stack.
pub fn walk(image: &Image<'_>, space: &dyn Space) -> Stack {
    let mut stack = Stack::default();
    let mut registers = Registers::new(image.registers);
    // Where it was interrupted, not behind a call.
    let mut is_exact = true;
    let mut by_frame_pointer = false;
    // Every step gives both.
    while let (Some(next), Some(low)) = (registers.instruction(), registers.stack()) {
        if stack.frames.len() == FRAMES_MAX {
            stack.end = Some(format!("more than {FRAMES_MAX} frames"));
            break;
        }
        // What returns lies behind its call, which may be the last thing in a function.
        let address = if is_exact { next } else { next.wrapping_sub(1) };
        let place = space.code(address);
        space.is_at(address);
        let frames = match &place {
            Place::Code(code, at) => code.frames(*at, behind(*at, is_exact)),
            Place::Unread(name, at, _) => {
                let offset = behind(*at, is_exact).0;
                vec![Frame { module: (*name).to_owned(), offset, ..Frame::default() }]
            }
            Place::Nothing => vec![Frame { offset: next, ..Frame::default() }],
        };
        let frames = frames.into_iter().map(|frame| Frame { by_frame_pointer, ..frame });
        stack.frames.extend(frames.take(FRAMES_MAX - stack.frames.len()));
        let caller = match &place {
            Place::Code(code, at) => code.caller(*at, &registers, image),
            _ => Err(StepError::NotDescribed),
        };
        let caller = match caller {
            Err(StepError::NotDescribed) => {
                by_frame_pointer = true;
                by_frame(&registers, image, space).ok_or(StepError::NotDescribed)
            }
            other => other,
        };
        registers = match caller {
            Ok(Caller::Nobody) => break,
            // A caller's frame lies higher, or the walk would not end.
            Ok(Caller::Call(caller)) if caller.stack().is_some_and(|high| high > low) => {
                is_exact = false;
                caller
            }
            Ok(Caller::Interrupted(caller)) => {
                is_exact = true;
                caller
            }
            Ok(Caller::Call(_)) => {
                stack.end = Some("the next frame would lie below this one".to_owned());
                break;
            }
            Err(error) => {
                stack.end = Some(why(error, &place, image));
                break;
            }
        };
    }
    stack
}

fn behind(at: VirtAddr, is_exact: bool) -> VirtAddr {
    if is_exact { at } else { VirtAddr(at.0.wrapping_add(1)) }
}

/// Who has called, if the frame pointer leads to a return address behind a call.
fn by_frame(registers: &Registers, image: &Image<'_>, space: &dyn Space) -> Option<Caller> {
    let (frame, low) = (registers.frame()?, registers.stack()?);
    if frame < low || frame % 8 != 0 {
        return None;
    }
    let above = image.read(frame, 8)?;
    let instruction = image.read(frame.checked_add(8)?, 8)?;
    match space.code(instruction) {
        Place::Code(code, at) if code.is_behind_call(at) => {
            let stack = frame.checked_add(16)?;
            Some(Caller::Call(Registers::of_caller(instruction, stack, Some(above))))
        }
        _ => None,
    }
}

fn why(error: StepError, place: &Place<'_>, image: &Image<'_>) -> String {
    match (error, place) {
        (StepError::NotCopied, _) if image.is_faulted() => "the stack could not be read".to_owned(),
        (StepError::NotCopied, _) => format!("only {} KiB are looked at", IMAGE_MAX / 1024),
        (_, Place::Nothing) => "nothing is known of the code there".to_owned(),
        (_, Place::Unread(name, _, why)) => format!("{name}: {why}"),
        (error, Place::Code(..)) => error.to_string(),
    }
}
