//! Links of sites that were written: attaching, taking functions out, detaching, and when nothing hits a
//! site any more.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use agent_common::function::cookie::{GENERATION_SHIFT, LINK_SHIFT, SILENT};

use super::link::{self, Closing, Linked, Places};
use super::target::Target;
use super::{
    FunctionError, FunctionProbes, InUse, LINKS, Link, LinkNo, Part, PartNo, Place, SitesNo, bpf,
    unusable, within,
};
use crate::event::ids::SiteNo;
use crate::function::FunctionNo;

/// Functions that are to go, and which is the first, the second, …
type Ranks = HashMap<FunctionNo, u32>;

/// What became of one step of attaching.
#[derive(Debug, Default)]
pub struct Step {
    /// Of which functions there are probes now.
    pub functions: BTreeSet<FunctionNo>,
    /// Which sites the kernel refuses, whose they are, and why.
    pub refused: Vec<(SiteNo, FunctionNo, io::Error)>,
}

impl FunctionProbes {
    /// A link of sites that were written, with an open file: [`go_on`](Self::go_on) attaches them, the last
    /// functions first. (What is watched besides functions has the last numbers, and is to be seen at once.)
    pub fn begin(
        &mut self,
        set: SitesNo,
        file: &File,
        tgid: Option<u32>,
    ) -> Result<LinkNo, FunctionError> {
        let file = Target::of(file)?;
        self.reap();
        let places = self.sets.get(&set).map(|set| set.places.iter().rev().copied().collect());
        let rest: VecDeque<Place> = places.unwrap_or_default();
        self.has_room(rest.len())?;
        // Seen by one thread only, a probe would lie; in all processes it slows those that share the file.
        let tgid = if self.test.sees_threads { tgid } else { None };
        let link = LinkNo(self.next_link);
        self.next_link = self.next_link.wrapping_add(1);
        self.links.insert(link, Link { parts: Vec::new(), rest, file, tgid, set });
        Ok(link)
    }

    /// Attaches the next sites of a link, about so many: all of a function's are attached together.
    pub fn go_on(&mut self, link: LinkNo, most: usize) -> Result<Step, FunctionError> {
        self.reap();
        let Some(known) = self.links.get_mut(&link) else { return Ok(Step::default()) };
        let places = next_places(&mut known.rest, most);
        if places.is_empty() {
            return Ok(Step::default());
        }
        let most = self.limits.links as usize;
        let taken = self.numbers.take(1).ok_or(FunctionError::TooMany {
            what: "links",
            wanted: most + 1,
            most,
        })?;
        let (number, generation) = (PartNo(taken.start), 0);
        let linked = self
            .set_live(number, generation)
            .and_then(|()| self.link(number, link, &places, generation));
        let linked = match linked {
            Ok(linked) => linked,
            Err(error) => {
                self.numbers.give_back(taken);
                return Err(error);
            }
        };
        let refused = linked.refused.into_iter().filter_map(|(index, error)| {
            places.get(index).map(|place| (place.site, place.function, error))
        });
        let refused: Vec<_> = refused.collect();
        // What was refused once is not tried again.
        let gone: HashSet<SiteNo> = refused.iter().map(|(site, ..)| *site).collect();
        let stays = |place: &&Place| !gone.contains(&place.site);
        let stay: Arc<[Place]> = places.iter().filter(stays).copied().collect();
        let Some(known) = self.links.get_mut(&link) else { return Ok(Step::default()) };
        if let Some(set) = self.sets.get_mut(&known.set) {
            set.links += 1;
            if !gone.is_empty() {
                set.places = set.places.iter().filter(stays).copied().collect();
            }
        }
        let functions = stay.iter().map(|place| place.function).collect();
        known.parts.push(Part { number, fds: linked.links, places: stay, generation });
        Ok(Step { functions, refused })
    }

    /// How many sites of a link are not attached yet.
    pub fn sites_left(&self, link: LinkNo) -> usize {
        self.links.get(&link).map_or(0, |link| link.rest.len())
    }

    /// Of how many functions these are.
    pub fn functions_left(&self, link: LinkNo) -> usize {
        let rest = self.links.get(&link).map(|link| &link.rest);
        let functions = rest.into_iter().flatten().map(|place| place.function);
        functions.collect::<HashSet<_>>().len()
    }

    /// Leaves them as they are.
    pub fn stop(&mut self, link: LinkNo) {
        if let Some(known) = self.links.get_mut(&link) {
            known.rest.clear();
        }
    }

    /// The functions of sites and where in the file those are, but for what the kernel refuses and what was
    /// taken out.
    pub fn places(&self, set: SitesNo) -> Vec<(FunctionNo, u64)> {
        let places = self.sets.get(&set).map(|set| Arc::clone(&set.places)).unwrap_or_default();
        places.iter().map(|place| (place.function, place.offset)).collect()
    }

    /// Frees sites when their last link is closed; from then on other sites have their places.
    /// [`take_freed`](Self::take_freed) tells when that is.
    pub fn free(&mut self, set: SitesNo) {
        if let Some(known) = self.sets.get_mut(&set) {
            known.is_wanted = false;
            self.free_unused(set);
        }
    }

    /// Sites that were freed and that nothing hits any more.
    pub fn take_freed(&mut self) -> Vec<SitesNo> {
        self.reap();
        std::mem::take(&mut self.freed)
    }

    /// How many numbers are in use.
    pub fn in_use(&self) -> InUse {
        InUse { sites: self.sites.used(), links: self.numbers.used() }
    }

    /// Takes in which links are closed.
    pub(super) fn reap(&mut self) {
        while let Some(part) = self.closer.closed() {
            self.gone(part);
        }
    }

    /// Nothing hits the probes of a part any more.
    fn gone(&mut self, part: PartNo) {
        self.numbers.give_back(part.0..part.0 + 1);
        if let Some(set) = self.closing.remove(&part) {
            if let Some(known) = self.sets.get_mut(&set) {
                known.links -= 1;
            }
            self.free_unused(set);
        }
    }

    fn free_unused(&mut self, set: SitesNo) {
        if let Some(known) = self.sets.get(&set)
            && !known.is_wanted
            && known.links == 0
            && let Some(known) = self.sets.remove(&set)
        {
            self.sites.give_back(known.block);
            self.freed.push(set);
        }
    }

    /// Takes the probes of some functions out of all links of these sites, and of those to come. Those of
    /// the first ones go first.
    ///
    /// Takes as long as attaching what stays of the parts that have them.
    pub fn take_out(
        &mut self,
        set: SitesNo,
        functions: &[FunctionNo],
    ) -> Result<(), FunctionError> {
        let Some(known) = self.sets.get_mut(&set) else { return Ok(()) };
        let ranks: Ranks = functions.iter().copied().zip(0..).collect();
        let stays = |place: &Place| !ranks.contains_key(&place.function);
        known.places = known.places.iter().filter(|place| stays(place)).copied().collect();
        let mut parts = Vec::new();
        for (link, known) in self.links.iter_mut().filter(|(_, link)| link.set == set) {
            known.rest.retain(stays);
            parts.extend(known.parts.iter().filter_map(|part| {
                let rank = part.places.iter().filter_map(|place| ranks.get(&place.function)).min();
                rank.map(|rank| (*rank, *link, part.number))
            }));
        }
        parts.sort_unstable();
        let (mut old, mut result) = (Vec::new(), Ok(()));
        for (_, link, part) in parts {
            match self.part_without(link, part, &ranks) {
                Ok(closing) => old.extend(closing),
                Err(error) => {
                    // Its process may have just ended. If not, no probe is better than one too many.
                    self.detach(link);
                    result = Err(error);
                }
            }
        }
        // Attaching takes several times as long while others detach.
        old.into_iter().for_each(|closing| self.closer.close(closing));
        result
    }

    /// Takes the probes of some functions out of a part of a link. The others stay as they are: a part without
    /// them is made before this one goes, and each hit is told once. What is to be closed for it.
    fn part_without(
        &mut self,
        link: LinkNo,
        number: PartNo,
        functions: &Ranks,
    ) -> Result<Option<Closing>, FunctionError> {
        let Some(known) = self.links.get_mut(&link) else { return Ok(None) };
        let Some(at) = known.parts.iter().position(|part| part.number == number) else {
            return Ok(None);
        };
        let (set, part) = (known.set, known.parts.swap_remove(at));
        let stays = |place: &&Place| !functions.contains_key(&place.function);
        let places: Arc<[Place]> = part.places.iter().filter(stays).copied().collect();
        if places.is_empty() {
            return Ok(Some(self.silenced(part, set, None)));
        }
        let generation = part.generation ^ 1;
        let linked = self.link(number, link, &places, generation);
        // From here on the new one is told, and the old one is not.
        let live = linked.and_then(|linked| self.set_live(number, generation).map(|()| linked));
        let (part, result) = match live {
            Ok(linked) => {
                let old = Closing { links: part.fds, ..Closing::default() };
                (Part { number, fds: linked.links, places, generation }, Ok(Some(old)))
            }
            Err(error) => (part, Err(error)),
        };
        if let Some(known) = self.links.get_mut(&link) {
            known.parts.push(part);
        }
        result
    }

    fn has_room(&self, points: usize) -> Result<(), FunctionError> {
        let Some(most) = self.points_max() else { return Ok(()) };
        let there = self.links.values().flat_map(|link| &link.parts);
        let there: usize = there.map(|part| part.places.len()).sum();
        within("probes (this kernel attaches them one by one)", there + points, most)
    }

    /// Says which generation of a part is told.
    fn set_live(&self, PartNo(part): PartNo, generation: u32) -> Result<(), FunctionError> {
        let map = self.loaded.maps.fd(LINKS)?;
        bpf::update(map, &part, &[generation]).map_err(|source| unusable(LINKS, source))
    }

    fn link(
        &self,
        PartNo(part): PartNo,
        link: LinkNo,
        places: &[Place],
        generation: u32,
    ) -> Result<Linked, FunctionError> {
        let Some(Link { file, tgid, .. }) = self.links.get(&link) else {
            return Ok(Linked::default());
        };
        let of_part = u64::from(part) << LINK_SHIFT | u64::from(generation) << GENERATION_SHIFT;
        let offsets: Vec<u64> = places.iter().map(|place| place.offset).collect();
        let cookies: Vec<u64> =
            places.iter().map(|place| u64::from(place.site.0) | of_part).collect();
        let semaphores: Vec<u64> = if places.iter().any(|place| place.semaphore != 0) {
            places.iter().map(|place| place.semaphore).collect()
        } else {
            Vec::new()
        };
        let (offsets, cookies, semaphores) = (&offsets[..], &cookies[..], &semaphores[..]);
        let places = Places { path: file.path(), tgid: *tgid, offsets, cookies, semaphores };
        link::attach(self.loaded.program.as_fd(), self.loaded.attach, places)
            .map_err(|source| FunctionError::Attach { path: file.name(), source })
    }

    /// Detaches what one [`attach`](Self::attach) has attached, soon: threads do it. Nothing more of it
    /// is told from here on.
    pub fn detach(&mut self, link: LinkNo) {
        self.detach_before(link, None);
    }

    /// As [`detach`](Self::detach); `behind` is closed when the probes are gone.
    pub fn detach_before(&mut self, link: LinkNo, behind: Option<OwnedFd>) {
        let Some(known) = self.links.remove(&link) else { return };
        let behind = behind.map(Arc::new);
        for part in known.parts {
            let closing = self.silenced(part, known.set, behind.clone());
            self.closer.close(closing);
        }
    }

    /// A part of which nothing is told any more, to be closed.
    fn silenced(&mut self, part: Part, set: SitesNo, behind: Option<Arc<OwnedFd>>) -> Closing {
        if let Err(error) = self.set_live(part.number, SILENT) {
            tracing::warn!(%error, "what is detached is told until it is gone");
        }
        self.closing.insert(part.number, set);
        Closing { links: part.fds, last_of: Some(part.number), behind }
    }

    /// Waits until everything that was detached is gone.
    pub fn wait_for_detached(&mut self) {
        while !self.closing.is_empty() {
            match self.closer.wait() {
                Some(part) => self.gone(part),
                // The threads are gone, and what they had with them.
                None => return,
            }
        }
    }
}

/// Takes the first places, about so many: all of a function.
fn next_places(rest: &mut VecDeque<Place>, most: usize) -> Vec<Place> {
    let mut count = most.min(rest.len());
    let function = |index: usize| rest.get(index).map(|place| place.function);
    while count > 0 && count < rest.len() && function(count) == function(count - 1) {
        count += 1;
    }
    rest.drain(..count).collect()
}
