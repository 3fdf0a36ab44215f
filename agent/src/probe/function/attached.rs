//! Links of sites that were written: attaching, taking functions out, detaching, and when nothing hits a
//! site any more.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use agent_common::function::cookie::{GENERATION_SHIFT, LINK_SHIFT, SILENT};

use super::link::{self, Closing, Linked, Places};
use super::target::Target;
use super::{
    FunctionError, FunctionProbes, InUse, LINKS, Link, LinkNo, Place, SitesNo, bpf, unusable,
    within,
};
use crate::function::FunctionNo;

impl FunctionProbes {
    /// Attaches sites that were written to an open file; those that the kernel refuses are told once.
    pub fn attach_set(
        &mut self,
        set: SitesNo,
        file: &File,
        tgid: Option<u32>,
    ) -> Result<(LinkNo, Vec<(usize, io::Error)>), FunctionError> {
        let file = Target::of(file)?;
        self.reap();
        let places = self.sets.get(&set).map(|set| Arc::clone(&set.places)).unwrap_or_default();
        self.has_room(places.len())?;
        // Seen by one thread only, a probe would lie; in all processes it slows those that share the file.
        let tgid = if self.test.sees_threads { tgid } else { None };
        let most = self.limits.links as usize;
        let number = self.numbers.take(1).ok_or(FunctionError::TooMany {
            what: "links",
            wanted: most + 1,
            most,
        })?;
        let link = LinkNo(number.start);
        let generation = 0;
        let linked = self
            .set_live(link, generation)
            .and_then(|()| self.link(link, &file, tgid, &places, generation));
        let linked = match linked {
            Ok(linked) => linked,
            Err(error) => {
                self.numbers.give_back(number);
                return Err(error);
            }
        };
        // What was refused once is not tried again.
        let places = if linked.refused.is_empty() {
            places
        } else {
            let refused: HashSet<usize> = linked.refused.iter().map(|(index, _)| *index).collect();
            let stay = places.iter().enumerate().filter(|(index, _)| !refused.contains(index));
            stay.map(|(_, place)| *place).collect()
        };
        if let Some(set) = self.sets.get_mut(&set) {
            set.places = Arc::clone(&places);
            set.links += 1;
        }
        let fds = linked.links;
        self.links.insert(link, Link { fds, file, tgid, set, places, generation });
        Ok((link, linked.refused))
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
        while let Some(link) = self.closer.closed() {
            self.gone(link);
        }
    }

    /// Nothing hits the probes of a link any more.
    fn gone(&mut self, link: LinkNo) {
        self.numbers.give_back(link.0..link.0 + 1);
        if let Some(set) = self.closing.remove(&link) {
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

    /// Takes the probes of some functions out of all links of these sites, and of those to come.
    ///
    /// Takes as long as attaching what stays.
    pub fn take_out(
        &mut self,
        set: SitesNo,
        functions: &HashSet<FunctionNo>,
    ) -> Result<(), FunctionError> {
        let Some(known) = self.sets.get_mut(&set) else { return Ok(()) };
        let stays = |place: &&Place| !functions.contains(&place.function);
        known.places = known.places.iter().filter(stays).copied().collect();
        let links =
            self.links.iter().filter(|(_, link)| link.set == set).map(|(number, _)| *number);
        let links: Vec<LinkNo> = links.collect();
        let mut result = Ok(());
        for link in links {
            if let Err(error) = self.detach_functions(link, functions) {
                // Its process may have just ended. If not, no probe is better than one too many.
                self.detach(link);
                result = Err(error);
            }
        }
        result
    }

    /// Takes the probes of some functions out of a link. The others stay as they are: a link without
    /// them is made before this one goes, and each hit is told once.
    ///
    /// Takes as long as attaching what stays.
    pub fn detach_functions(
        &mut self,
        link: LinkNo,
        functions: &HashSet<FunctionNo>,
    ) -> Result<(), FunctionError> {
        let Some(known) = self.links.get(&link) else { return Ok(()) };
        let stays = |place: &&Place| !functions.contains(&place.function);
        let places: Arc<[Place]> = known.places.iter().filter(stays).copied().collect();
        if places.is_empty() {
            self.detach(link);
            return Ok(());
        }
        if places.len() == known.places.len() {
            return Ok(());
        }
        let generation = known.generation ^ 1;
        let linked = self.link(link, &known.file, known.tgid, &places, generation)?;
        // From here on the new one is told, and the old one is not.
        self.set_live(link, generation)?;
        if let Some(known) = self.links.get_mut(&link) {
            known.places = places;
            known.generation = generation;
            let old = std::mem::replace(&mut known.fds, linked.links);
            self.closer.close(Closing { links: old, ..Closing::default() });
        }
        Ok(())
    }

    fn has_room(&self, points: usize) -> Result<(), FunctionError> {
        let Some(most) = self.points_max() else { return Ok(()) };
        let there: usize = self.links.values().map(|link| link.places.len()).sum();
        within("probes (this kernel attaches them one by one)", there + points, most)
    }

    /// Says which generation of a link is told.
    fn set_live(&self, link: LinkNo, generation: u32) -> Result<(), FunctionError> {
        let map = self.loaded.maps.fd(LINKS)?;
        bpf::update(map, &link.0, &[generation]).map_err(|source| unusable(LINKS, source))
    }

    fn link(
        &self,
        link: LinkNo,
        file: &Target,
        tgid: Option<u32>,
        places: &[Place],
        generation: u32,
    ) -> Result<Linked, FunctionError> {
        let of_link = u64::from(link.0) << LINK_SHIFT | u64::from(generation) << GENERATION_SHIFT;
        let offsets: Vec<u64> = places.iter().map(|place| place.offset).collect();
        let cookies: Vec<u64> =
            places.iter().map(|place| u64::from(place.site.0) | of_link).collect();
        let semaphores: Vec<u64> = if places.iter().any(|place| place.semaphore != 0) {
            places.iter().map(|place| place.semaphore).collect()
        } else {
            Vec::new()
        };
        let (offsets, cookies, semaphores) = (&offsets[..], &cookies[..], &semaphores[..]);
        let places = Places { path: file.path(), tgid, offsets, cookies, semaphores };
        link::attach(self.loaded.program.as_fd(), self.loaded.attach, places)
            .map_err(|source| FunctionError::Attach { path: file.name(), source })
    }

    /// Detaches what one [`attach`](Self::attach) has attached, soon: a thread does it. Nothing more of it
    /// is told from here on.
    pub fn detach(&mut self, link: LinkNo) {
        self.detach_before(link, None);
    }

    /// As [`detach`](Self::detach); `behind` is closed when the probes are gone.
    pub fn detach_before(&mut self, link: LinkNo, behind: Option<OwnedFd>) {
        if let Some(known) = self.links.remove(&link) {
            if let Err(error) = self.set_live(link, SILENT) {
                tracing::warn!(%error, "what is detached is told until it is gone");
            }
            self.closing.insert(link, known.set);
            self.closer.close(Closing { links: known.fds, last_of: Some(link), behind });
        }
    }

    /// Waits until everything that was detached is gone.
    pub fn wait_for_detached(&mut self) {
        while !self.closing.is_empty() {
            match self.closer.wait() {
                Some(link) => self.gone(link),
                // The thread is gone, and what it had with it.
                None => return,
            }
        }
    }
}
