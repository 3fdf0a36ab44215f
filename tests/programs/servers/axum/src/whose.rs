//! What `tests/tests/whose.rs` asks: the first part of a path says what else is done for a request.

use std::io;
use std::sync::Once;
use std::time::Duration;

use axum::http::Uri;
use tokio::net::TcpStream;
use tokio::time::sleep;

static POLLS: Once = Once::new();

async fn ask(back: u16, path: &str) -> io::Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", back)).await?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    stream.writable().await?;
    stream.try_write(head.as_bytes())?;
    let mut buffer = [0; 4096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn poll(back: u16) -> io::Result<()> {
    loop {
        ask(back, "/poll/0").await?;
        sleep(Duration::from_millis(5)).await;
    }
}

/// Does what the path says.
pub async fn whose(uri: Uri, back: u16) -> &'static str {
    let path = uri.path().to_owned();
    let kind = path.split('/').nth(1).unwrap_or_default();
    let later = {
        let path = path.clone();
        async move { ask(back, &path).await }
    };
    match kind {
        "each" => {
            for _ in 0..2 {
                sleep(Duration::from_millis(2)).await;
                ask(back, &path).await.expect("it answers");
            }
        }
        "together" => {
            let asks = [path.clone(), path.clone(), path.clone()];
            let tasks = asks.map(|path| tokio::spawn(async move { ask(back, &path).await }));
            for task in tasks {
                task.await.expect("no panic").expect("it answers");
            }
        }
        "slow" => {
            POLLS.call_once(|| drop(tokio::spawn(poll(back))));
            sleep(Duration::from_millis(30)).await;
        }
        "after" => drop(tokio::spawn(later)),
        _ => {}
    }
    "ok"
}
