//! A server of our own, which answers as it likes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// How a server answers.
#[derive(Clone)]
enum Answer {
    /// With this file.
    File(Vec<u8>),
    /// With a status.
    Status(&'static str),
    /// With bytes for ever.
    Endless,
    /// With some bytes, and then with none.
    Stalled,
    /// With fewer bytes than it said.
    Cut(Vec<u8>),
    /// With another place to look at.
    Elsewhere(Url),
}

/// Listens until the test ends; how often it was asked, and where.
fn serve(answer: Answer) -> (Url, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/prefix/", listener.local_addr().expect("it listens"));
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            // A client that hangs up ends it.
            std::thread::spawn(move || respond(stream, &answer));
        }
    });
    (Url::parse(&url).expect("a URL"), asked)
}

fn respond(mut stream: TcpStream, answer: &Answer) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    assert!(path.starts_with("/prefix/buildid/") && path.ends_with("/debuginfo"), "{head}");
    match answer {
        Answer::File(file) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.len())?;
            stream.write_all(file)
        }
        Answer::Cut(file) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.len() + 1)?;
            stream.write_all(file)
        }
        Answer::Status(status) => write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"),
        Answer::Elsewhere(url) => {
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n")
        }
        Answer::Endless => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[0; 4096])?;
            }
        }
        Answer::Stalled => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")?;
            // Until the client has had enough.
            stream.read_exact(&mut [0])
        }
    }
}

/// A directory that is removed with what is in it.
struct Cache(PathBuf);

impl Cache {
    fn new(name: &str) -> Self {
        let name = format!("remora-debuginfod-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(&self.0).into_iter().flatten().flatten();
        files.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const SMALL: Bounds =
    Bounds { bytes: 1 << 30, whole: Duration::from_secs(60), silence: Duration::from_secs(60) };

/// An ELF file with this build id and nothing else.
fn elf(id: &[u8]) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |file: &mut Vec<u8>, value: u16| file.extend_from_slice(&value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend_from_slice(&value.to_le_bytes());
    let long = |file: &mut Vec<u8>, value: u64| file.extend_from_slice(&value.to_le_bytes());
    let note = 16 + id.len() as u64;
    // A shared object for x86-64.
    half(&mut file, 3);
    half(&mut file, 62);
    word(&mut file, 1);
    for value in [0, 64, 0] {
        long(&mut file, value);
    }
    word(&mut file, 0);
    for value in [64, 56, 1, 64, 0, 0] {
        half(&mut file, value);
    }
    // PT_NOTE
    word(&mut file, 4);
    word(&mut file, 4);
    for value in [120, 0, 0, note, note, 4] {
        long(&mut file, value);
    }
    for value in [4, id.len() as u32, 3] {
        word(&mut file, value);
    }
    file.extend_from_slice(b"GNU\0");
    file.extend_from_slice(id);
    file
}

const ID: [u8; 20] = [7; 20];

#[test]
fn a_file_is_fetched_once_and_kept() {
    let cache = Cache::new("kept");
    let (without, not_there) = serve(Answer::Status("404 Not Found"));
    let (with, asked) = serve(Answer::File(elf(&ID)));
    let servers = vec![without, with];
    let debuginfod = Debuginfod::new(servers.clone(), cache.0.clone(), SMALL);
    let path = debuginfod.fetch(&ID).expect("the second has it");
    assert_eq!(fs::read(&path).expect("it is kept"), elf(&ID));
    assert_eq!(debuginfod.fetch(&ID).as_ref(), Some(&path));
    // Nor does the next run ask.
    assert_eq!(Debuginfod::new(servers, cache.0.clone(), SMALL).fetch(&ID), Some(path.clone()));
    assert_eq!((not_there.load(Ordering::SeqCst), asked.load(Ordering::SeqCst)), (1, 1));
    // What was kept and is spoiled is asked for again.
    fs::write(&path, "spoiled").expect("it is ours");
    assert_eq!(debuginfod.fetch(&ID), Some(path));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(cache.files().len(), 1);
}

#[test]
fn what_agents_have_left_is_removed() {
    let cache = Cache::new("left");
    let kept = format!("cafe.{}", std::os::unix::process::parent_id());
    fs::create_dir_all(&cache.0).expect("it is ours");
    // No process has this id: the kernel's highest is 1 << 22.
    for name in ["cafe.4194305", &kept, "cafe", "cafe.x"] {
        fs::write(cache.0.join(name), "half").expect("it is ours");
    }
    let (server, _) = serve(Answer::Status("404 Not Found"));
    assert_eq!(Debuginfod::new(vec![server], cache.0.clone(), SMALL).fetch(&ID), None);
    let mut files = cache.files();
    files.sort();
    assert_eq!(files, ["cafe", &kept, "cafe.x"]);
}

#[test]
fn what_no_server_has_is_asked_for_once() {
    let cache = Cache::new("unknown");
    let (server, asked) = serve(Answer::Status("404 Not Found"));
    let debuginfod = Debuginfod::new(vec![server], cache.0.clone(), SMALL);
    for _ in 0..3 {
        assert_eq!(debuginfod.fetch(&ID), None);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Another build is another question; an id of a few bytes is none.
    assert_eq!((debuginfod.fetch(&[8; 20]), debuginfod.fetch(&[8; 4])), (None, None));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(cache.files(), Vec::<String>::new());
}

#[test]
fn a_server_that_fails_is_not_asked_again() {
    let (other, found) = serve(Answer::File(elf(&ID)));
    let short = Bounds { silence: Duration::from_millis(200), ..SMALL };
    let little = Bounds { bytes: 100_000, ..SMALL };
    for (name, answer, bounds, reason) in [
        ("status", Answer::Status("500 Oh No"), SMALL, "500"),
        ("garbage", Answer::File(vec![b'x'; 5000]), SMALL, "no debug file"),
        ("empty", Answer::File(Vec::new()), SMALL, "no debug file"),
        ("build", Answer::File(elf(&[9; 20])), SMALL, "another build"),
        ("endless", Answer::Endless, little, "larger than 100000 bytes"),
        ("stalled", Answer::Stalled, short, "no byte came"),
        ("slow", Answer::Stalled, Bounds { whole: short.silence, ..SMALL }, "timed out"),
        ("cut", Answer::Cut(elf(&ID)), SMALL, "error"),
        ("elsewhere", Answer::Elsewhere(other.clone()), SMALL, "302"),
    ] {
        let cache = Cache::new(name);
        let (server, asked) = serve(answer);
        let debuginfod = Debuginfod::new(vec![server.clone()], cache.0.clone(), bounds);
        let error = debuginfod.ask(&server, &ID, "name").expect_err(name);
        let told = client::chain(&error);
        assert!(told.contains(reason), "{name}: {told}");
        assert_eq!((debuginfod.fetch(&ID), debuginfod.fetch(&[8; 20])), (None, None), "{name}");
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{name}");
        assert_eq!(cache.files(), Vec::<String>::new(), "{name}");
    }
    assert_eq!(found.load(Ordering::SeqCst), 0, "nobody else is asked");
}

#[test]
fn the_environment_is_read() {
    let of = |pairs: &[(&str, &str)], is_root| {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let variable = |name: &str| Some(pairs.iter().find(|(key, _)| key == name)?.1.clone());
        Debuginfod::from_env(variable, is_root)
    };
    let urls = ("DEBUGINFOD_URLS", " http://a:1/x  https://b ");
    let found = of(&[urls, ("XDG_CACHE_HOME", "/c"), ("HOME", "/h")], true).expect("good");
    assert_eq!(
        found.servers().iter().map(Url::as_str).collect::<Vec<_>>(),
        ["http://a:1/x", "https://b/"]
    );
    assert_eq!(found.cache, Path::new("/c/remora/debuginfod"));
    let cache = |pairs: &[(&str, &str)], is_root| of(pairs, is_root).map(|found| found.cache);
    let is = |cache: Result<PathBuf, DebuginfodError>| cache.map_err(|error| error.to_string());
    assert_eq!(is(cache(&[urls, ("HOME", "/h")], true)), Ok("/var/cache/remora/debuginfod".into()));
    assert_eq!(is(cache(&[urls, ("HOME", "/h")], false)), Ok("/h/.cache/remora/debuginfod".into()));
    for (pairs, told) in [
        (vec![], "needs the servers' URLs"),
        (vec![("DEBUGINFOD_URLS", " ")], "needs the servers' URLs"),
        (vec![("DEBUGINFOD_URLS", "ftp://x")], "cannot use `ftp://x`"),
        (vec![("DEBUGINFOD_URLS", "x")], "cannot use `x`"),
        (vec![urls], "set XDG_CACHE_HOME"),
    ] {
        let error = is(cache(&pairs, false)).expect_err(told);
        assert!(error.contains(told), "{error}");
    }
}
