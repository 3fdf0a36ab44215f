//! Debug files from servers (elfutils' debuginfod protocol), for programs whose own are not on this host.
//!
//! Only if it is asked for: each question tells a server which build of which program runs here. A server is
//! asked by build id and by nothing else. What it answers is believed when it is an ELF file of that very
//! build; it is bounded in size and time, and kept, so that it is asked for once. A server that fails is not
//! asked again.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{StatusCode, Url};

use crate::export::client;
use crate::inspect::debug_file::Server;
use crate::inspect::elf::{ElfError, Module};

/// Largest file that is taken, and how long that may take.
const BOUNDS: Bounds =
    Bounds { bytes: 2 << 30, whole: Duration::from_secs(60), silence: Duration::from_secs(5) };

/// What an answer may take.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    bytes: u64,
    /// From the question to the last byte.
    whole: Duration,
    /// Without a byte.
    silence: Duration,
}

/// Why servers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DebuginfodError {
    /// None is named.
    #[error("--debuginfod needs the servers' URLs in DEBUGINFOD_URLS, with spaces between")]
    NoServer,
    /// It is no URL.
    #[error("cannot use `{url}` of DEBUGINFOD_URLS: expected http://… or https://…")]
    Url {
        /// As it was given.
        url: String,
    },
    /// Nowhere to keep files.
    #[error("--debuginfod needs a place for files: set XDG_CACHE_HOME or HOME")]
    NoCache,
}

/// Why a file was not had.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Server(String),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("no byte came for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
    #[error("what it sends is of another build")]
    OtherBuild,
    #[error("what it sends is no debug file")]
    NoElf(#[source] ElfError),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The servers, and what they have sent.
pub struct Debuginfod {
    /// Those that have not failed.
    servers: Mutex<Vec<Url>>,
    cache: PathBuf,
    bounds: Bounds,
    /// Builds that no server has.
    unknown: Mutex<HashSet<Vec<u8>>>,
}

impl fmt::Debug for Debuginfod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may hold a password.
        f.debug_struct("Debuginfod").field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl Debuginfod {
    /// What the environment says: `DEBUGINFOD_URLS`, and where files are kept.
    ///
    /// # Errors
    /// If it names no server, or something else than URLs.
    pub fn from_env(
        variable: impl Fn(&str) -> Option<String>,
        is_root: bool,
    ) -> Result<Self, DebuginfodError> {
        let given = |name| variable(name).filter(|value| !value.trim().is_empty());
        let urls = given("DEBUGINFOD_URLS").ok_or(DebuginfodError::NoServer)?;
        let servers = urls.split_whitespace().map(server).collect::<Result<_, _>>()?;
        let cache = match (given("XDG_CACHE_HOME"), given("HOME")) {
            (Some(cache), _) => PathBuf::from(cache),
            // A daemon's.
            _ if is_root => PathBuf::from("/var/cache"),
            (None, Some(home)) => PathBuf::from(home).join(".cache"),
            (None, None) => return Err(DebuginfodError::NoCache),
        };
        Ok(Self::new(servers, cache.join("remora/debuginfod"), BOUNDS))
    }

    fn new(servers: Vec<Url>, cache: PathBuf, bounds: Bounds) -> Self {
        Self { servers: Mutex::new(servers), cache, bounds, unknown: Mutex::default() }
    }

    fn servers(&self) -> Vec<Url> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes what agents have left that ended in the middle of it.
    fn clear(&self) {
        for entry in fs::read_dir(&self.cache).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let writer =
                name.to_str().and_then(|name| name.rsplit_once('.')?.1.parse::<u32>().ok());
            if writer.is_some_and(|writer| !Path::new(&format!("/proc/{writer}")).exists()) {
                // Another agent may be at it, too.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Asks one server: where the file is kept, if it has it.
    fn ask(&self, server: &Url, id: &[u8], name: &str) -> Result<Option<PathBuf>, FetchError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| FetchError::Write { path, source }
        };
        fs::create_dir_all(&self.cache).map_err(write(&self.cache))?;
        self.clear();
        let part = self.cache.join(format!("{name}.{}", std::process::id()));
        let _ = fs::remove_file(&part);
        let mut file = fs::File::create_new(&part).map_err(write(&part))?;
        let part = Part { path: part };
        let had = download(server, name, self.bounds, &mut |bytes| {
            file.write_all(bytes).map_err(write(&part.path))
        })?;
        if !had {
            return Ok(None);
        }
        let module = Module::open(&part.path).map_err(FetchError::NoElf)?;
        if module.build_id() != Some(id) {
            return Err(FetchError::OtherBuild);
        }
        let kept = self.cache.join(name);
        fs::rename(&part.path, &kept).map_err(write(&kept))?;
        Ok(Some(kept))
    }
}

impl Server for Debuginfod {
    fn fetch(&self, id: &[u8]) -> Option<PathBuf> {
        let name: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let kept = self.cache.join(&name);
        if Module::open(&kept).is_ok_and(|module| module.build_id() == Some(id)) {
            return Some(kept);
        }
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if id.len() < 8 || unknown.contains(id) {
            return None;
        }
        for server in self.servers() {
            let host = server.host_str().unwrap_or_default();
            match self.ask(&server, id, &name) {
                Ok(Some(path)) => {
                    tracing::info!(build_id = name, host, "debug file fetched");
                    return Some(path);
                }
                Ok(None) => tracing::debug!(build_id = name, host, "no debug file there"),
                Err(error) => {
                    let reason = client::chain(&error);
                    tracing::warn!(build_id = name, host, %reason, "no debug file; this server is not asked again");
                    let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
                    servers.retain(|other| *other != server);
                }
            }
        }
        unknown.insert(id.to_owned());
        None
    }
}

/// A file that is gone with this, unless it has another name by then.
struct Part {
    path: PathBuf,
}

impl Drop for Part {
    fn drop(&mut self) {
        // Renamed, it is not there.
        let _ = fs::remove_file(&self.path);
    }
}

fn server(text: &str) -> Result<Url, DebuginfodError> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.filter(Url::has_host).ok_or_else(|| DebuginfodError::Url { url: text.to_owned() })
}

/// `GET …/buildid/ID/debuginfo`, piece by piece; false if there is no such file.
fn download(
    server: &Url,
    id: &str,
    bounds: Bounds,
    take: &mut dyn FnMut(&[u8]) -> Result<(), FetchError>,
) -> Result<bool, FetchError> {
    let failed = |error: reqwest::Error| FetchError::Server(client::chain(&error.without_url()));
    let mut url = server.clone();
    let path = format!("{}/buildid/{id}/debuginfo", url.path().trim_end_matches('/'));
    url.set_path(&path);
    let talk = async {
        let client = client::builder(&url, bounds.whole).build().map_err(failed)?;
        let silent = |_| FetchError::Silent(bounds.silence);
        let answer = tokio::time::timeout(bounds.silence, client.get(url.clone()).send());
        let mut answer = answer.await.map_err(silent)?.map_err(failed)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(false),
            status => return Err(FetchError::Status(status)),
        }
        let mut bytes = 0;
        loop {
            let chunk = tokio::time::timeout(bounds.silence, answer.chunk());
            let Some(chunk) = chunk.await.map_err(silent)?.map_err(failed)? else {
                return Ok(true);
            };
            bytes += chunk.len() as u64;
            if bytes > bounds.bytes {
                return Err(FetchError::TooLarge(bounds.bytes));
            }
            take(&chunk)?;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| FetchError::Server(error.to_string()))?;
    runtime.block_on(talk)
}

#[cfg(test)]
mod tests;
