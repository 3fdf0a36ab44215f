//! HTTP/1.1 as far as an exporter speaks it: posts with a length, one after the other.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Answer, Received, Shared};

/// Serves a connection until its end.
pub(super) async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Arc<Shared>) {
    let mut seen = Vec::new();
    while let Some(request) = read(&mut stream, &mut seen).await {
        let is_json = request.header("content-type") == "application/json";
        let answer = shared.receive(request);
        match answer {
            Answer::Silence => std::future::pending().await,
            Answer::Reset | Answer::TakeAndReset => return,
            Answer::Hold => shared.wait_for_release().await,
            Answer::Garbage => {
                // Whether it is read or not, the client has to go.
                let _ = stream.write_all(b"\x16\x03 220 smtp\r\n\r\n").await;
                let _ = stream.flush().await;
                std::future::pending().await
            }
            _ => {}
        }
        let (status, headers, body) = answer.http(is_json);
        let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let bytes = [head.as_bytes(), b"\r\n", &body].concat();
        // A client that has gone reads no answer.
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

/// The next request; `None`: the end.
async fn read(stream: &mut (impl AsyncRead + Unpin), seen: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(end) = seen.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, seen).await?;
    };
    let head = String::from_utf8_lossy(&seen[..end]).into_owned();
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut request = Received { path, headers, ids: Vec::new(), body: Vec::new(), taken: false };
    let length: usize = request.header("content-length").parse().ok()?;
    while seen.len() < end + length {
        more(stream, seen).await?;
    }
    request.body = seen[end..end + length].to_vec();
    seen.drain(..end + length);
    Some(request)
}

async fn more(stream: &mut (impl AsyncRead + Unpin), seen: &mut Vec<u8>) -> Option<()> {
    let read = stream.read_buf(seen).await.ok()?;
    (read > 0).then_some(())
}
