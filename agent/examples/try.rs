//! try
use remora::probe::*;
fn main() {
    let t = std::time::Instant::now();
    let o = Options {
        source: None,
        ring_bytes: 8 << 20,
        processes_max: 16384,
        payload_limit: 4096,
        rules: false,
    };
    let mut c = match Capture::start(&o) {
        Ok(c) => c,
        Err(e) => {
            eprintln!("{e:?}");
            std::process::exit(1)
        }
    };
    eprintln!("started {:?} {:?}", c.source(), t.elapsed());
    let pid: u32 = std::env::args().nth(1).expect("pid").parse().expect("n");
    c.select(pid, false, 4096).expect("select");
    for _ in 0..30 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        c.drain(100000, |r| {
            eprintln!("{} {:?}", r.len(), String::from_utf8_lossy(&r[64.min(r.len())..]));
            eprintln!("{:02x?}", &r[..64.min(r.len())]);
        });
    }
    eprintln!("{:?}", c.counters());
}
