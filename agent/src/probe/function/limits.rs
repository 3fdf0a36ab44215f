//! How much of everything there may be: sizes of maps, and what of them is needed.

use agent_common::function::site_number::PLACE_BITS;

use super::FunctionError;

/// Sizes of maps, which the kernel fills with zeroes at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most sites.
    pub sites: u32,
    /// Most ops of all sites together, the same code counted once.
    pub ops: u32,
    /// Most functions: each takes 40 bytes for every CPU that the host may have.
    pub functions: u32,
    /// Most links.
    pub links: u32,
}

impl Limits {
    /// What most need.
    pub const USUAL: Self =
        Self { sites: 1 << 17, ops: 1 << 18, functions: 1 << 14, links: 1 << 16 };
    /// The largest. Sites are numbered so far.
    pub const MOST: Self =
        Self { sites: 1 << PLACE_BITS, ops: 1 << 22, functions: 1 << 18, links: 1 << 16 };

    /// No less than these, and with room for so much more as there is need for, if that is not too much.
    #[must_use]
    pub fn with_room(self, need: Need) -> Self {
        let room = |is: u32, need: usize, most: u32| {
            let need = u32::try_from(need).unwrap_or(most).min(most);
            is.max(need.next_power_of_two())
        };
        Self {
            sites: room(self.sites, need.sites, Self::MOST.sites),
            ops: room(self.ops, need.ops, Self::MOST.ops),
            functions: room(self.functions, need.functions, Self::MOST.functions),
            links: self.links,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::USUAL
    }
}

/// What points take of [`Limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// How many there are.
    pub sites: usize,
    /// Their ops, the same code counted once.
    pub ops: usize,
    /// Their functions.
    pub functions: usize,
}

/// Whether so many are no more than there may be.
pub(super) fn within(what: &'static str, wanted: usize, most: usize) -> Result<(), FunctionError> {
    if wanted > most { Err(FunctionError::TooMany { what, wanted, most }) } else { Ok(()) }
}
