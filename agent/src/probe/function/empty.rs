//! The least that a probe costs: a program that returns at once, attached as the agent attaches its own.
//! What benchmarks compare with.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::FunctionError;
use super::link::{self, Places};
use super::loader::Attach;
use crate::probe::bpf::program::{self, Kind, Load, Records};
use crate::probe::object::ObjectError;

/// `r0 = 0; exit`, eight bytes each.
const INSTRUCTIONS: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

const NAME: &str = "empty";

/// The empty program.
#[derive(Debug)]
pub struct EmptyProgram(OwnedFd);

/// Where it is attached, while this is there.
#[derive(Debug)]
pub struct EmptyProbes(#[expect(dead_code, reason = "held")] Vec<OwnedFd>);

impl EmptyProgram {
    /// Loads it. Needs links of many places (Linux 6.6).
    ///
    /// # Errors
    /// If the kernel does not take it.
    pub fn load() -> Result<Self, FunctionError> {
        let program = program::load(&Load {
            name: NAME,
            kind: Kind::UprobeMulti,
            instructions: &INSTRUCTIONS,
            license: c"GPL",
            types: None,
            functions: Records::default(),
            lines: Records::default(),
        });
        let program = program.map_err(|source| ObjectError::Program { program: NAME, source })?;
        Ok(Self(program))
    }

    /// Attaches it to places of a file in one process.
    ///
    /// # Errors
    /// If the kernel refuses one of them.
    pub fn attach(
        &self,
        file: &Path,
        tgid: u32,
        offsets: &[u64],
    ) -> Result<EmptyProbes, FunctionError> {
        let path = CString::new(file.as_os_str().as_bytes()).map_err(FunctionError::Path)?;
        let cookies = vec![0; offsets.len()];
        let (path, cookies, semaphores) = (path.as_c_str(), &cookies[..], &[][..]);
        let places = Places { path, tgid: Some(tgid), offsets, cookies, semaphores };
        let refused =
            |source: io::Error| FunctionError::Attach { path: PathBuf::from(file), source };
        let linked = link::attach(self.0.as_fd(), Attach::Multi, places).map_err(refused)?;
        match linked.refused.into_iter().next() {
            None => Ok(EmptyProbes(linked.links)),
            Some((_, source)) => Err(refused(source)),
        }
    }
}
