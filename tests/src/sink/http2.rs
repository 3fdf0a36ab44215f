//! gRPC's unary calls over HTTP/2.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::answer::Grpc;
use super::{Answer, Received, Shared};

/// Serves a connection until its end.
pub(super) async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Arc<Shared>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let shared = Arc::clone(shared);
        // What fails here fails because the client has gone.
        tokio::spawn(async move { call(request, respond, &shared).await.ok() });
    }
}

async fn call(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    let headers = head.headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let answer = shared.receive(Received {
        path: head.uri.path().to_owned(),
        headers: headers.collect(),
        ids: Vec::new(),
        body: bytes,
        taken: false,
    });
    match answer {
        // The stream is open as long as this future is.
        Answer::Silence => std::future::pending().await,
        Answer::Reset | Answer::TakeAndReset => {
            shared.reset.notify_waiters();
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        Answer::Hold => shared.wait_for_release().await,
        _ => {}
    }
    let (grpc, message) = answer.grpc();
    let Some(grpc) = grpc else {
        let status = if matches!(answer, Answer::Redirect(_)) { 307 } else { 200 };
        let response = Response::builder().status(status).header("content-type", "text/html");
        let mut stream = respond.send_response(response.body(()).expect("valid"), false)?;
        return stream.send_data(message.into(), true);
    };
    let response = Response::builder().header("content-type", "application/grpc");
    let response = response.body(()).expect("valid");
    if grpc.code != 0 {
        // Without a message the status stands among the headers ("Trailers-Only").
        let mut response = response;
        response.headers_mut().extend(trailers(&grpc));
        respond.send_response(response, true)?;
        return Ok(());
    }
    let mut stream = respond.send_response(response, false)?;
    let mut frame = BytesMut::from(&[0][..]);
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    stream.send_data(frame.freeze(), false)?;
    stream.send_trailers(trailers(&grpc))
}

fn trailers(grpc: &Grpc) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", grpc.code.into());
    trailers.insert("grpc-message", HeaderValue::from_static(grpc.message));
    if let Some(details) = &grpc.details {
        let details = HeaderValue::from_str(details).expect("base64");
        trailers.insert("grpc-status-details-bin", details);
    }
    trailers
}
