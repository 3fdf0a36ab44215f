//! The file of `remora record`: every [`Step`] of a pipeline, so that a replay gives the same spans
//! byte for byte.
//!
//! Layout, little-endian: the eight bytes `remora\0` and a version; the seed of the identities
//! (u64); then entries: length of what follows (u32), tag (u8), body. Records are as the kernel half
//! wrote them (`agent_common`), in the byte order of the machine that recorded.

use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Step;
use crate::event::ids::Tgid;
use crate::platform::clock::{MonoNs, WallOffset};
use crate::span::attributes::{Attributes, Value};
use crate::span::model::Resource;

const MAGIC: [u8; 7] = *b"remora\0";
const VERSION: u8 = 1;
/// Longest entry: a record with its payload is at most some kilobytes, a resource some more.
const ENTRY_MAX: u32 = 1 << 20;

const CLOCK: u8 = 1;
const PROCESS: u8 = 2;
const RECORD: u8 = 3;
const COLLECT: u8 = 4;
const FINISH: u8 = 5;
const FUNCTION: u8 = 6;
const STACK: u8 = 7;

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It is something else.
    #[error("this is not a recording of remora's")]
    NotARecording,
    /// Another version wrote it.
    #[error("the recording has version {found}, this remora reads {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// It is cut or changed.
    #[error("the recording is damaged at byte {at}")]
    Damaged {
        /// Where the entry begins that makes no sense.
        at: u64,
    },
    /// It could not be read.
    #[error("cannot read the recording")]
    Read(#[source] io::Error),
}

/// A resource as it is written.
#[derive(Serialize, Deserialize)]
struct Announced {
    tgid: u32,
    multiplexes_tasks: bool,
    service_name: String,
    attributes: Vec<(String, Stored)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
    Bytes(Vec<u8>),
    Texts(Vec<String>),
}

/// Writes a recording.
pub struct Recorder<W> {
    out: W,
    entry: Vec<u8>,
}

impl<W: Write> Recorder<W> {
    /// Begins a recording.
    pub fn new(mut out: W, seed: u64) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        out.write_all(&[VERSION])?;
        out.write_all(&seed.to_le_bytes())?;
        Ok(Self { out, entry: Vec::new() })
    }

    /// Writes one step.
    pub fn write(&mut self, step: &Step<'_>) -> io::Result<()> {
        self.entry.clear();
        match step {
            Step::Clock(wall) => self.body(CLOCK, &wall.ns.to_le_bytes()),
            Step::Process { tgid, resource, multiplexes_tasks } => {
                let announced = Announced {
                    tgid: tgid.0,
                    multiplexes_tasks: *multiplexes_tasks,
                    service_name: resource.service_name.clone(),
                    attributes: resource.attributes.iter().map(store).collect(),
                };
                let json = serde_json::to_vec(&announced).map_err(io::Error::from)?;
                self.body(PROCESS, &json);
            }
            Step::Function(facts) => {
                let json = serde_json::to_vec(&**facts).map_err(io::Error::from)?;
                self.body(FUNCTION, &json);
            }
            Step::Stack(taken) => {
                let json = serde_json::to_vec(&**taken).map_err(io::Error::from)?;
                self.body(STACK, &json);
            }
            Step::Record(record) => self.body(RECORD, record),
            Step::Collect(at) => self.body(COLLECT, &at.0.to_le_bytes()),
            Step::Finish(at) => self.body(FINISH, &at.0.to_le_bytes()),
        }
        self.out.write_all(&self.entry)
    }

    /// Writes what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn body(&mut self, tag: u8, body: &[u8]) {
        self.entry.extend_from_slice(&(body.len() as u32 + 1).to_le_bytes());
        self.entry.push(tag);
        self.entry.extend_from_slice(body);
    }
}

/// Reads a recording.
pub struct Player<R> {
    input: R,
    seed: u64,
    entry: Vec<u8>,
    at: u64,
}

impl<R: Read> Player<R> {
    /// Reads the beginning of a recording.
    pub fn new(mut input: R) -> Result<Self, RecordingError> {
        let mut head = [0; 16];
        match input.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(RecordingError::NotARecording);
            }
            Err(error) => return Err(RecordingError::Read(error)),
        }
        let [m0, m1, m2, m3, m4, m5, m6, version, seed @ ..] = head;
        if [m0, m1, m2, m3, m4, m5, m6] != MAGIC {
            return Err(RecordingError::NotARecording);
        }
        if version != VERSION {
            return Err(RecordingError::Version { found: version });
        }
        Ok(Self { input, seed: u64::from_le_bytes(seed), entry: Vec::new(), at: 16 })
    }

    /// The seed of the identities.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next step; `None` at the end.
    pub fn next_step(&mut self) -> Result<Option<Step<'_>>, RecordingError> {
        let damaged = RecordingError::Damaged { at: self.at };
        let mut length = [0; 4];
        match read_whole(&mut self.input, &mut length)? {
            0 => return Ok(None),
            4 => {}
            _ => return Err(damaged),
        }
        let length = u32::from_le_bytes(length);
        if !(1..=ENTRY_MAX).contains(&length) {
            return Err(damaged);
        }
        self.entry.resize(length as usize, 0);
        if read_whole(&mut self.input, &mut self.entry)? != self.entry.len() {
            return Err(damaged);
        }
        self.at += 4 + u64::from(length);
        step(&self.entry).ok_or(damaged).map(Some)
    }
}

fn step(entry: &[u8]) -> Option<Step<'_>> {
    let (tag, body) = entry.split_first()?;
    let number = || Some(u64::from_le_bytes(body.try_into().ok()?));
    Some(match *tag {
        CLOCK => Step::Clock(WallOffset { ns: number()? as i64 }),
        PROCESS => {
            let announced: Announced = serde_json::from_slice(body).ok()?;
            let mut attributes = Attributes::default();
            for (key, value) in &announced.attributes {
                attributes.push(key, borrow(value));
            }
            Step::Process {
                tgid: Tgid(announced.tgid),
                resource: Arc::new(Resource { attributes, service_name: announced.service_name }),
                multiplexes_tasks: announced.multiplexes_tasks,
            }
        }
        FUNCTION => Step::Function(Arc::new(serde_json::from_slice(body).ok()?)),
        STACK => Step::Stack(Arc::new(serde_json::from_slice(body).ok()?)),
        RECORD => Step::Record(body),
        COLLECT => Step::Collect(MonoNs(number()?)),
        FINISH => Step::Finish(MonoNs(number()?)),
        _ => return None,
    })
}

fn store((key, value): (&str, Value<'_>)) -> (String, Stored) {
    let value = match value {
        Value::Text(text) => Stored::Text(text.to_owned()),
        Value::Int(number) => Stored::Int(number),
        Value::Double(number) => Stored::Double(number),
        Value::Bool(truth) => Stored::Bool(truth),
        Value::Bytes(bytes) => Stored::Bytes(bytes.to_vec()),
        Value::Texts(texts) => Stored::Texts(texts.iter().map(str::to_owned).collect()),
    };
    (key.to_owned(), value)
}

fn borrow(value: &Stored) -> Value<'_> {
    match value {
        Stored::Text(text) => Value::Text(text),
        Stored::Int(number) => Value::Int(*number),
        Stored::Double(number) => Value::Double(*number),
        Stored::Bool(truth) => Value::Bool(*truth),
        Stored::Bytes(bytes) => Value::Bytes(bytes),
        Stored::Texts(texts) => Value::texts(texts),
    }
}

/// Reads as much as there is, up to the buffer's size.
fn read_whole(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, RecordingError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(RecordingError::Read(error)),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ids::{SiteNo, Tid};
    use crate::stack::{Frame, Stack, Taken};

    fn steps() -> Vec<Step<'static>> {
        let mut attributes = Attributes::default();
        attributes.text("service.name", "müller");
        attributes.int("process.pid", -1);
        attributes.push("process.command_args", Value::texts(&["a".to_owned(), String::new()]));
        let resource = Arc::new(Resource { attributes, service_name: "müller".to_owned() });
        vec![
            Step::Clock(WallOffset { ns: -7 }),
            Step::Process { tgid: Tgid(4711), resource, multiplexes_tasks: true },
            Step::Stack(Arc::new(Taken {
                at: MonoNs(3),
                tgid: Tgid(4711),
                tid: Tid(4712),
                site: SiteNo(u32::MAX),
                stack: Stack {
                    frames: vec![Frame { function: "größer".to_owned(), ..Frame::default() }],
                    end: Some("it is enough".to_owned()),
                },
            })),
            Step::Record(b"any bytes"),
            Step::Record(b""),
            Step::Collect(MonoNs(5)),
            Step::Finish(MonoNs(u64::MAX)),
        ]
    }

    fn recording() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut recorder = Recorder::new(&mut bytes, 42).expect("a vector takes all");
        for step in steps() {
            recorder.write(&step).expect("a vector takes all");
        }
        bytes
    }

    fn play(bytes: &[u8]) -> Result<usize, RecordingError> {
        let mut player = Player::new(bytes)?;
        let mut count = 0;
        while player.next_step()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = recording();
        let mut player = Player::new(bytes.as_slice()).expect("just written");
        assert_eq!(player.seed(), 42);
        for expected in steps() {
            let step = player.next_step().expect("just written").expect("not the end");
            assert_eq!(step, expected);
        }
        assert_eq!(player.next_step().expect("the end"), None);
    }

    #[test]
    fn damage_is_told_wherever_it_is() {
        let bytes = recording();
        assert_eq!(play(&bytes).expect("whole"), steps().len());
        for cut in 0..bytes.len() {
            match play(&bytes[..cut]) {
                Ok(count) => assert!(count < steps().len()),
                Err(RecordingError::NotARecording) => assert!(cut < 16),
                Err(RecordingError::Damaged { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                // Any answer will do, but there must be one.
                let _ = play(&changed);
            }
        }
        let mut newer = bytes;
        newer[7] = 9;
        assert!(matches!(play(&newer), Err(RecordingError::Version { found: 9 })));
    }
}
