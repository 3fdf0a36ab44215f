//! What is kept of the running kernel's types: where fields lie, and what programs are attached to. The
//! types themselves are let go before anything is loaded: they take more memory than all the rest.

use super::bpf::program::Kind;
use super::error::CaptureError;
use super::offsets;
use super::source::{Attachment, GONE_SOCKETS, Hook, LIFECYCLE, SIGNALS, Source, UNIX_SOCKETS};
use crate::platform::btf::Btf;
use crate::platform::memory;

/// What the running kernel looks like.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) offsets: Vec<u32>,
    hooks: Vec<(Hook, Found)>,
}

/// What a kernel has at a hook.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// Its number among the kernel's types; `None` if it has nothing.
    id: Option<u32>,
    /// How many parameters the function has.
    parameters: Option<u32>,
}

impl Kernel {
    /// Reads the kernel's types.
    pub(super) fn read() -> Result<Self, CaptureError> {
        let types = Btf::from_sys_fs()?;
        let offsets = offsets::resolve(&types)?;
        let sources = Source::ALL.into_iter().flat_map(Source::attachments);
        let attachments =
            LIFECYCLE.iter().chain([&SIGNALS, &UNIX_SOCKETS, &GONE_SOCKETS]).chain(sources);
        let mut hooks: Vec<(Hook, Found)> = Vec::new();
        for Attachment { hook, .. } in attachments {
            if hooks.iter().all(|(known, _)| known != hook) {
                hooks.push((*hook, find(&types, *hook)));
            }
        }
        drop(types);
        memory::give_back();
        Ok(Self { offsets, hooks })
    }

    /// How a program for this place is loaded; `None` if it is left out on this kernel.
    pub(super) fn kind(&self, attachment: &Attachment) -> Result<Option<Kind>, CaptureError> {
        let known = self.hooks.iter().find(|(hook, _)| *hook == attachment.hook);
        let found = known.map_or(Found { id: None, parameters: None }, |(_, found)| *found);
        match (attachment.hook, found.id) {
            (Hook::Tracepoint(_), Some(id)) => Ok(Some(Kind::Tracepoint(id))),
            (Hook::Tracepoint(name), None) => Err(CaptureError::Tracepoint { name }),
            (Hook::Iterator(_), Some(id)) => Ok(Some(Kind::Iterator(id))),
            (Hook::Iterator(_), None) => Ok(None),
            (Hook::FunctionExit { parameters, .. }, Some(id))
                if found.parameters == Some(parameters) =>
            {
                Ok(Some(Kind::FunctionExit(id)))
            }
            (Hook::FunctionExit { optional: true, .. }, _) => Ok(None),
            (Hook::FunctionExit { function: name, parameters, .. }, _) => {
                Err(CaptureError::Function { name, parameters, found: found.parameters })
            }
        }
    }
}

fn find(types: &Btf, hook: Hook) -> Found {
    match hook {
        Hook::Tracepoint(name) => Found { id: types.tracepoint(name), parameters: None },
        Hook::Iterator(name) => {
            Found { id: types.function(&format!("bpf_iter_{name}")), parameters: None }
        }
        Hook::FunctionExit { function, .. } => {
            Found { id: types.function(function), parameters: types.parameters(function) }
        }
    }
}
