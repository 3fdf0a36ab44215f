//! The account balances, whatever happens in whatever order.

use proptest::prelude::*;

use super::*;
use crate::span::attributes::Attributes;
use crate::span::model::{Kind, Resource, SpanId, StatusCode, TraceId, UnixNs};

fn batch(spans: usize) -> Batch {
    let attributes = Attributes::default();
    let resource = Arc::new(Resource { attributes, service_name: String::new() });
    let span = Span {
        resource,
        trace_id: TraceId([1; 16]),
        span_id: SpanId([1; 8]),
        parent: None,
        trace_state: String::new(),
        trace_flags: 0,
        kind: Kind::Server,
        name: "GET".into(),
        start: UnixNs(0),
        end: UnixNs(0),
        attributes: Attributes::default(),
        events: Vec::new(),
        links: Vec::new(),
        status: StatusCode::Unset,
        status_message: String::new(),
    };
    vec![span; spans].into()
}

#[derive(Clone, Debug)]
enum Act {
    Offer(usize),
    /// Takes as a sender on the runtime does.
    Pop(usize),
    /// Takes as a writer on a thread does.
    TakeAll,
    /// Settles what was taken first; how much of it was delivered, in hundredths.
    Settle(u64, Loss),
    Retried,
    Close,
    Abandon,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0usize..40).prop_map(Act::Offer),
        3 => (1usize..60).prop_map(Act::Pop),
        1 => Just(Act::TakeAll),
        4 => (0u64..=100, prop::sample::select(&Loss::ALL[..]))
            .prop_map(|(share, loss)| Act::Settle(share, loss)),
        1 => Just(Act::Retried),
        1 => Just(Act::Close),
        1 => Just(Act::Abandon),
    ]
}

proptest! {
    #[test]
    fn accepted_is_sent_and_queued_and_lost(acts in prop::collection::vec(act(), 0..60)) {
        let one = batch(1).footprint(0..1);
        let queue = Queue::new(Room { spans: 100, bytes: 80 * one });
        let mut taken: VecDeque<u64> = VecDeque::new();
        let (mut offered, mut retries) = (0, 0);
        for act in acts {
            match act {
                Act::Offer(spans) => {
                    offered += spans as u64;
                    queue.offer(&batch(spans));
                }
                Act::Pop(most) => {
                    let request = queue.pop(Portion { spans: most, bytes: 30 * one });
                    prop_assert!(request.len() <= most.min(30));
                    taken.push_back(request.len() as u64);
                }
                Act::TakeAll => {
                    let batches = queue.take_blocking(Some(Duration::ZERO)).unwrap_or_default();
                    taken.push_back(batches.iter().map(|batch| batch.len() as u64).sum());
                }
                Act::Settle(share, loss) => {
                    let Some(spans) = taken.pop_front() else { continue };
                    let sent = spans * share / 100;
                    queue.settle(sent, spans - sent, loss);
                }
                Act::Retried => {
                    retries += 1;
                    queue.retried();
                }
                Act::Close => queue.close(),
                Act::Abandon => {
                    prop_assert_eq!(queue.abandon(), queue.account());
                }
            }
            let account = queue.account();
            let Account { accepted, sent, queued, .. } = account;
            prop_assert_eq!(accepted, offered);
            prop_assert_eq!(accepted, sent + queued + account.lost_in_all(), "{:?}", account);
            prop_assert!(queued <= 100);
            prop_assert_eq!(account.retries, retries);
        }
    }
}

#[test]
fn a_closed_queue_is_drained_and_then_ends() {
    let queue = Queue::new(Room { spans: 5, bytes: usize::MAX });
    queue.offer(&batch(1));
    queue.close();
    assert!(queue.is_closing());
    assert_eq!(queue.take_blocking(None).map(|batches| batches.len()), Some(1));
    assert!(queue.take_blocking(None).is_none());
}

#[test]
fn who_waits_for_room_is_not_held_by_a_dead_destination() {
    let queue = Queue::new(Room { spans: 10, bytes: usize::MAX });
    queue.offer(&batch(10));
    queue.pop(Portion { spans: 10, bytes: usize::MAX });
    // Nothing is settled: it returns all the same.
    queue.wait_for_half(Duration::from_millis(1));
    queue.settle(6, 0, Loss::Io);
    queue.wait_for_half(Duration::from_secs(3600));
}

#[test]
fn few_wait_for_others_and_enough_do_not() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime can be had").block_on(async {
        let queue = Queue::new(Room { spans: 100, bytes: usize::MAX });
        let portion = Portion { spans: 10, bytes: usize::MAX };
        let mut taken = std::pin::pin!(queue.take(Duration::from_secs(3600), portion));
        let mut is_ready = async || {
            tokio::select! {
                biased;
                request = &mut taken => request.map(|request| request.len()),
                () = std::future::ready(()) => None,
            }
        };
        assert_eq!(is_ready().await, None);
        queue.offer(&batch(9));
        assert_eq!(is_ready().await, None);
        queue.offer(&batch(3));
        assert_eq!(is_ready().await, Some(10));
        // What is due goes with whoever brings more.
        let mut due = std::pin::pin!(queue.take(Duration::ZERO, portion));
        assert_eq!((&mut due).await.map(|request| request.len()), Some(2));
    });
}
