//! What every HTTP client here has in common.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, Url};

/// A client that talks to this URL and to nobody else.
pub(crate) fn builder(url: &Url, timeout: Duration) -> ClientBuilder {
    let builder = ClientBuilder::new()
        .user_agent(concat!("remora/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        // A proxy or a redirect would send spans where no one asked to.
        .no_proxy()
        .redirect(Policy::none())
        .hickory_dns(true);
    // Without TLS it has to work on a host that has no certificates, as many containers have not.
    if url.scheme() == "http" { builder.tls_certs_only([]) } else { builder }
}

/// An error with its causes: the outermost alone says only "error sending request".
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
