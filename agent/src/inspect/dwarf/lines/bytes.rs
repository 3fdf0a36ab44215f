//! The bytes of a section, read as they are needed: of a file a few pages are kept, and of what was packed
//! all of it. Knows nothing of what they say.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;

use gimli::{Error, LittleEndian, Reader, ReaderOffsetId};

use crate::inspect::address::FileOffset;
use crate::inspect::elf::Module;

/// Bytes that are read at once. Units' first entries, which are all that is read of most, lie far apart.
const PAGE: u64 = 16 << 10;

/// Most pages that are kept of a file.
const PAGES_MAX: usize = 192;

/// Longest run of bytes that is given in one piece.
const PIECE_MAX: usize = 64 << 10;

/// Where bytes come from.
pub(super) enum Source {
    File(Pages),
    Bytes(Rc<[u8]>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File(_) => "File",
            Self::Bytes(_) => "Bytes",
        })
    }
}

/// A file.
pub(super) struct Pages {
    module: Module,
    kept: RefCell<Kept>,
}

#[derive(Default)]
struct Kept {
    pages: HashMap<u64, Rc<[u8]>>,
    /// The oldest first.
    order: VecDeque<u64>,
}

impl Source {
    pub(super) fn of(module: Module) -> Self {
        Self::File(Pages { module, kept: RefCell::default() })
    }

    /// Lets go of what is kept of a file.
    pub(super) fn forget_pages(&self) {
        if let Self::File(pages) = self {
            pages.kept.take();
        }
    }

    /// What is read with the byte at `at`.
    fn window(&self, at: u64) -> gimli::Result<Window> {
        match self {
            Self::Bytes(bytes) => Ok(Window { at: 0, bytes: Rc::clone(bytes) }),
            Self::File(pages) => {
                let bytes = pages.page(at / PAGE)?;
                Ok(Window { at: at - at % PAGE, bytes })
            }
        }
    }
}

/// A part of what there is.
#[derive(Clone, Debug)]
struct Window {
    at: u64,
    bytes: Rc<[u8]>,
}

impl Window {
    /// What it has from `at` on.
    fn from(&self, at: u64) -> &[u8] {
        let inside = at.checked_sub(self.at).and_then(|inside| usize::try_from(inside).ok());
        inside.and_then(|inside| self.bytes.get(inside..)).unwrap_or_default()
    }
}

impl Pages {
    fn page(&self, number: u64) -> gimli::Result<Rc<[u8]>> {
        let mut kept = self.kept.borrow_mut();
        if let Some(page) = kept.pages.get(&number) {
            return Ok(Rc::clone(page));
        }
        let page: Rc<[u8]> = self.read(number)?.into();
        if kept.order.len() >= PAGES_MAX
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.pages.remove(&oldest);
        }
        kept.order.push_back(number);
        kept.pages.insert(number, Rc::clone(&page));
        Ok(page)
    }

    fn read(&self, number: u64) -> gimli::Result<Vec<u8>> {
        let at = number.checked_mul(PAGE).ok_or(Error::Io)?;
        let left = self.module.file_bytes().map_err(|_| Error::Io)?.saturating_sub(at);
        let bytes = left.min(PAGE);
        let what = || format!("a page at {at:#x}");
        self.module.read_at(FileOffset(at), bytes, what).map_err(|_| Error::Io)
    }
}

/// A run of bytes.
#[derive(Clone, Debug)]
pub(super) struct Bytes {
    source: Rc<Source>,
    at: u64,
    end: u64,
    /// What was read last.
    window: Window,
}

impl Bytes {
    pub(super) fn new(source: &Rc<Source>, at: u64, length: u64) -> Self {
        let window = Window { at: 0, bytes: Rc::default() };
        Self { source: Rc::clone(source), at, end: at.saturating_add(length), window }
    }

    pub(super) fn none() -> Self {
        Self::new(&Rc::new(Source::Bytes(Rc::default())), 0, 0)
    }

    /// At most so many of them.
    pub(super) fn first(mut self, most: usize) -> Self {
        self.end = self.end.min(self.at.saturating_add(most as u64));
        self
    }

    fn left(&self) -> usize {
        (self.end - self.at) as usize
    }

    fn eof(&self) -> Error {
        Error::UnexpectedEof(self.offset_id())
    }

    fn advanced(&self, by: usize) -> gimli::Result<u64> {
        if by > self.left() { Err(self.eof()) } else { Ok(self.at + by as u64) }
    }
}

impl Reader for Bytes {
    type Endian = LittleEndian;
    type Offset = usize;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    fn len(&self) -> usize {
        self.left()
    }

    fn empty(&mut self) {
        self.at = self.end;
    }

    fn truncate(&mut self, length: usize) -> gimli::Result<()> {
        self.end = self.advanced(length)?;
        Ok(())
    }

    fn offset_from(&self, base: &Self) -> usize {
        self.at.saturating_sub(base.at) as usize
    }

    fn offset_id(&self) -> ReaderOffsetId {
        ReaderOffsetId(self.at)
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        (self.at..=self.end).contains(&id.0).then(|| (id.0 - self.at) as usize)
    }

    fn find(&self, byte: u8) -> gimli::Result<usize> {
        let (mut at, mut window) = (self.at, self.window.clone());
        while at < self.end {
            if window.from(at).is_empty() {
                window = self.source.window(at)?;
            }
            let left = usize::try_from(self.end - at).unwrap_or(usize::MAX);
            let bytes = window.from(at);
            let bytes = bytes.get(..left).unwrap_or(bytes);
            if let Some(found) = memchr::memchr(byte, bytes) {
                return Ok((at - self.at) as usize + found);
            }
            if bytes.is_empty() {
                break;
            }
            at += bytes.len() as u64;
        }
        Err(self.eof())
    }

    fn skip(&mut self, length: usize) -> gimli::Result<()> {
        self.at = self.advanced(length)?;
        Ok(())
    }

    fn split(&mut self, length: usize) -> gimli::Result<Self> {
        let end = self.advanced(length)?;
        let first = Self { end, ..self.clone() };
        self.at = end;
        Ok(first)
    }

    fn to_slice(&self) -> gimli::Result<Cow<'_, [u8]>> {
        if self.left() > PIECE_MAX {
            return Err(self.eof());
        }
        let mut bytes = vec![0; self.left()];
        self.clone().read_slice(&mut bytes)?;
        Ok(bytes.into())
    }

    fn to_string(&self) -> gimli::Result<Cow<'_, str>> {
        let bytes = self.to_slice()?.into_owned();
        String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Error::BadUtf8)
    }

    fn to_string_lossy(&self) -> gimli::Result<Cow<'_, str>> {
        Ok(String::from_utf8_lossy(&self.to_slice()?).into_owned().into())
    }

    fn read_u8(&mut self) -> gimli::Result<u8> {
        match self.window.from(self.at).first() {
            Some(byte) if self.at < self.end => {
                self.at += 1;
                Ok(*byte)
            }
            _ => self.read_u8_array().map(|[byte]: [u8; 1]| byte),
        }
    }

    fn read_slice(&mut self, buffer: &mut [u8]) -> gimli::Result<()> {
        let end = self.advanced(buffer.len())?;
        let mut rest = buffer;
        while !rest.is_empty() {
            if self.window.from(self.at).is_empty() {
                self.window = self.source.window(self.at)?;
            }
            let bytes = self.window.from(self.at);
            let count = bytes.len().min(rest.len());
            if count == 0 {
                // The file is shorter than it has said.
                return Err(Error::Io);
            }
            if let (Some(to), Some(from)) = (rest.get_mut(..count), bytes.get(..count)) {
                to.copy_from_slice(from);
            }
            self.at += count as u64;
            rest = rest.get_mut(count..).unwrap_or_default();
        }
        self.at = end;
        Ok(())
    }
}
