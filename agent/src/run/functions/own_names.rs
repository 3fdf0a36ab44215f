//! What files call themselves, remembered: each process maps the same ones.

use std::collections::HashMap;

use super::file::{FileId, Mapped, Version, own_name};

/// Most files of which it is.
const FILES_MAX: usize = 4096;

/// By file.
#[derive(Default)]
pub(super) struct OwnNames(HashMap<FileId, (Version, Option<String>)>);

impl OwnNames {
    /// That of a file that a process maps.
    pub(super) fn of(&mut self, module: &Mapped) -> Option<String> {
        let version = Version::of(&module.open)?;
        if let Some((known, name)) = self.0.get(&module.id)
            && *known == version
        {
            return name.clone();
        }
        if self.0.len() >= FILES_MAX {
            self.0.clear();
        }
        let name = own_name(&module.open);
        self.0.insert(module.id, (version, name.clone()));
        name
    }
}
