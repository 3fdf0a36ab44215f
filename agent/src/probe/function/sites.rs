//! What lies where in the maps of sites and of their code: places are taken for the sites of a file, and
//! given back when nothing hits them any more. Writes no map.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use agent_common::function::site_number::{PLACE_BITS, PLACE_MASK};
use agent_common::function::{OPS_MAX, Op};

use super::{FunctionError, Limits, within};
use crate::event::ids::SiteNo;
use crate::function::numbers::Numbers;

/// Who has which place.
#[derive(Debug)]
pub(super) struct Sites {
    places: Numbers,
    /// How often each place has been given back.
    before: Vec<u16>,
    ops: Numbers,
    /// Where code lies that some site has: sites that read the same share it.
    code: HashMap<Arc<[Op]>, Stored>,
}

#[derive(Debug)]
struct Stored {
    ops: Arc<[Op]>,
    at: u32,
    /// How many sites have it.
    users: u32,
}

/// Places that were taken together.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) places: Range<u32>,
    code: Vec<Arc<[Op]>>,
}

/// A block that is to be written.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) block: Block,
    /// Where the code of each site lies.
    pub(super) code: Vec<u32>,
    /// What is to be written of code, and where.
    pub(super) fresh: Vec<(u32, Arc<[Op]>)>,
}

impl Sites {
    /// Nothing is taken of maps of these sizes.
    pub(super) fn new(sites: u32, ops: u32) -> Self {
        // More could not be numbered.
        let sites = sites.min(PLACE_MASK + 1);
        let (places, ops) = (Numbers::below(sites), Numbers::below(ops));
        Self { places, before: Vec::new(), ops, code: HashMap::new() }
    }

    /// Larger ones, of which nothing is taken either.
    pub(super) fn grown(self, limits: Limits) -> Self {
        Self { before: self.before, ..Self::new(limits.sites, limits.ops) }
    }

    /// Takes places for as many sites as there are items: what each reads.
    pub(super) fn take<'a>(
        &mut self,
        sites: impl ExactSizeIterator<Item = &'a [Op]>,
    ) -> Result<Taken, FunctionError> {
        let count = sites.len();
        let mut taken = Taken::default();
        taken.block.places =
            self.places.take(count).ok_or_else(|| full("probes", count, &self.places))?;
        for ops in sites {
            match self.take_code(ops, &mut taken) {
                Ok(at) => taken.code.push(at),
                Err(error) => {
                    self.give_back(taken.block);
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    fn take_code(&mut self, ops: &[Op], taken: &mut Taken) -> Result<u32, FunctionError> {
        within("values of one function", ops.len(), OPS_MAX)?;
        if ops.is_empty() {
            return Ok(0);
        }
        if let Some(stored) = self.code.get_mut(ops) {
            stored.users += 1;
            taken.block.code.push(Arc::clone(&stored.ops));
            return Ok(stored.at);
        }
        let run = self.ops.take(ops.len()).ok_or_else(|| full("values", ops.len(), &self.ops))?;
        let ops: Arc<[Op]> = ops.into();
        let stored = Stored { ops: Arc::clone(&ops), at: run.start, users: 1 };
        self.code.insert(Arc::clone(&ops), stored);
        taken.block.code.push(Arc::clone(&ops));
        taken.fresh.push((run.start, ops));
        Ok(run.start)
    }

    /// The number of the site at a place.
    pub(super) fn number(&self, place: u32) -> SiteNo {
        let before = self.before.get(place as usize).copied().unwrap_or(0);
        SiteNo(u32::from(before) << PLACE_BITS | place)
    }

    /// Gives places back. Nothing hits them any more.
    pub(super) fn give_back(&mut self, block: Block) {
        for ops in block.code {
            if let Entry::Occupied(mut stored) = self.code.entry(ops) {
                stored.get_mut().users -= 1;
                if stored.get().users == 0 {
                    let (ops, Stored { at, .. }) = stored.remove_entry();
                    self.ops.give_back(at..at + ops.len() as u32);
                }
            }
        }
        let end = block.places.end as usize;
        if self.before.len() < end {
            self.before.resize(end, 0);
        }
        for before in self.before.get_mut(block.places.start as usize..end).unwrap_or_default() {
            *before = before.wrapping_add(1) & (u16::MAX >> (PLACE_BITS - 16));
        }
        self.places.give_back(block.places);
    }

    /// How many places are taken.
    pub(super) fn used(&self) -> u32 {
        self.places.used()
    }
}

fn full(what: &'static str, wanted: usize, numbers: &Numbers) -> FunctionError {
    let wanted = numbers.used() as usize + wanted;
    FunctionError::TooMany { what, wanted, most: numbers.most() as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(imm: i32) -> Op {
        Op { imm, ..Op::default() }
    }

    fn take(sites: &mut Sites, code: &[Vec<Op>]) -> Result<Taken, FunctionError> {
        sites.take(code.iter().map(Vec::as_slice))
    }

    #[test]
    fn a_place_that_had_another_site_has_another_number() {
        let mut sites = Sites::new(4, 0);
        let numbers: Vec<SiteNo> = (0..5000)
            .map(|_| {
                let taken = take(&mut sites, &[vec![], vec![]]).expect("there is room");
                let number = sites.number(taken.block.places.start);
                assert_eq!(number.0 & PLACE_MASK, 0);
                sites.give_back(taken.block);
                number
            })
            .collect();
        let first = numbers.first().copied();
        let again = numbers.iter().skip(1).position(|number| Some(*number) == first);
        assert_eq!(again, Some(4095), "a number comes again when all were given out");
        assert_eq!(sites.used(), 0);
    }

    #[test]
    fn code_is_shared_and_goes_with_its_last_site() {
        let mut sites = Sites::new(8, 4);
        let (short, long) = (vec![op(1)], vec![op(2), op(3)]);
        let first = take(&mut sites, &[short.clone(), short.clone(), long.clone()]).expect("fits");
        assert_eq!((first.code.as_slice(), first.fresh.len()), (&[0, 0, 1][..], 2));
        let second = take(&mut sites, &[long.clone(), vec![]]).expect("fits");
        assert_eq!((second.code.as_slice(), second.fresh.len()), (&[1, 0][..], 0));
        sites.give_back(first.block);
        // What the second has is still there, and the first's room is.
        let third = take(&mut sites, &[long.clone(), vec![op(4)]]).expect("fits");
        assert_eq!((third.code.as_slice(), third.fresh.len()), (&[1, 0][..], 1));
        sites.give_back(second.block);
        sites.give_back(third.block);
        let all = take(&mut sites, &[vec![op(5), op(6), op(7), op(8)]]).expect("all is free");
        assert_eq!(all.code, [0]);
    }

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let mut sites = Sites::new(4, 4);
        let error = take(&mut sites, &vec![vec![]; 5]).expect_err("five are too many");
        assert_eq!(
            error.to_string(),
            "too many probes: 5 are wanted, 4 fit; ask for fewer functions"
        );
        take(&mut sites, &[vec![op(1)], vec![op(2); 4]]).expect_err("too much code");
        take(&mut sites, &[vec![op(1); OPS_MAX + 1]]).expect_err("too long");
        assert_eq!(sites.used(), 0);
        let taken =
            take(&mut sites, &[vec![op(1); 4], vec![], vec![], vec![]]).expect("all is free");
        assert_eq!(taken.fresh.len(), 1);
    }
}
