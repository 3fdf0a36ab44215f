//! Two futures of one async function, polled in turn, each twice.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Lets others go first, once.
struct Yield(bool);

impl Future for Yield {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

async fn fetch(n: u32) -> u32 {
    Yield(false).await;
    black_box(n) + 1
}

fn main() {
    let mut context = Context::from_waker(Waker::noop());
    let mut futures: Vec<Pin<Box<dyn Future<Output = u32>>>> =
        vec![black_box(Box::pin(fetch(1))), black_box(Box::pin(fetch(2)))];
    let mut sum = 0;
    for _ in 0..2 {
        for future in &mut futures {
            if let Poll::Ready(n) = future.as_mut().poll(&mut context) {
                sum += n;
            }
        }
    }
    println!("{sum}");
}
