//! The scenes' endpoints on axum: `axum-server PORT [BACK]`; with what it asks at port BACK. A program under test.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

mod whose;

/// Not inlined, so that it is there to be traced.
#[inline(never)]
fn has_it(fields: &HeaderMap) -> bool {
    fields.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == "\"remora\"")
}

async fn hello(fields: HeaderMap) -> Response {
    if has_it(&fields) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([(header::ETAG, "\"remora\"")], "hello\n").into_response()
}

async fn stream() -> Body {
    let parts = (0..3).map(|number| Ok::<_, Infallible>(format!("part {number}\n")));
    Body::from_stream(futures_util::stream::iter(parts))
}

async fn flood() -> Body {
    let parts = (0..3).map(|_| Ok::<_, Infallible>(vec![0_u8; 100_000]));
    Body::from_stream(futures_util::stream::iter(parts))
}

async fn moved() -> Response {
    (StatusCode::FOUND, [(header::LOCATION, "/hello")]).into_response()
}

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or_default();
    let back = std::env::args().nth(2).and_then(|back| back.parse().ok());
    let mut app = Router::new()
        .route("/hello", get(hello))
        .route("/big", get(|| async { vec![0_u8; 1 << 20] }))
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/stream", get(stream))
        .route("/flood", get(flood))
        .route("/moved", get(moved))
        .route("/none", get(|| async { StatusCode::NO_CONTENT }));
    if let Some(back) = back {
        app = app.fallback(move |uri: Uri| whose::whose(uri, back));
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?.block_on(
        async {
            let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
            axum::serve(listener, app).await
        },
    )
}
