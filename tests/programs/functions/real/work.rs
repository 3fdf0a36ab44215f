//! A little of everything that Rust's standard library does, the same each time; ends by a panic.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::panic;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

fn fibonacci(n: u64) -> u64 {
    if n < 2 { n } else { fibonacci(n - 1) + fibonacci(n - 2) }
}

fn main() {
    println!("ready");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let sum = Arc::new(Mutex::new(0));
    let (sender, receiver) = mpsc::channel();
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let (sum, sender) = (sum.clone(), sender.clone());
            thread::spawn(move || {
                *sum.lock().unwrap() += fibonacci(10 + n);
                sender.send(format!("{n:>5}|{:.3}", n as f64 / 3.0)).unwrap();
            })
        })
        .collect();
    drop(sender);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut said: Vec<String> = receiver.iter().collect();
    said.sort();
    println!("{said:?} {}", sum.lock().unwrap());
    let words: BTreeMap<String, usize> = (0..500).map(|n| (format!("k{}", n * 7919 % 503), n)).collect();
    println!("{} {:?}", words.len(), words.iter().next());
    panic::set_hook(Box::new(|_| ()));
    for wrong in [0, 1, 2] {
        let caught = panic::catch_unwind(|| match wrong {
            0 => "x".parse::<u8>().map(|_| ()).unwrap(),
            1 => drop(vec![0][wrong]),
            _ => panic!("raised"),
        });
        println!("{}", caught.is_err());
    }
    let out = std::process::Command::new("sh").args(["-c", "echo out; exit 3"]).output().unwrap();
    println!("{out:?}");
    panic!("the end");
}
