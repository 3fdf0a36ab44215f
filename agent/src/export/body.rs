//! What is sent, in the pieces that lie in memory: a request's spans were encoded when they ended, batch by
//! batch, and are copied by nobody but the kernel.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// Less than this is copied to what is around it: a piece costs more than a copy of so much.
const COPIED: usize = 8 << 10;

/// The pieces of a body, in order.
#[derive(Clone, Debug)]
pub struct Pieces {
    pieces: Arc<[Bytes]>,
    bytes: usize,
}

impl Pieces {
    /// How many bytes they are together.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }

    /// As a request takes them.
    pub(super) fn into_body(self) -> reqwest::Body {
        match &*self.pieces {
            // Of which it can be sent again what no server has looked at.
            [one] => reqwest::Body::from(one.clone()),
            _ => reqwest::Body::wrap(Unsent { left: self.bytes as u64, next: 0, pieces: self }),
        }
    }
}

impl From<Vec<u8>> for Pieces {
    fn from(whole: Vec<u8>) -> Self {
        Self { bytes: whole.len(), pieces: Arc::new([whole.into()]) }
    }
}

/// Puts pieces together.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    pieces: Vec<Bytes>,
    /// Behind those.
    copied: Vec<u8>,
    bytes: usize,
}

impl Assembly {
    /// Adds what `write` appends.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.copied.len();
        write(&mut self.copied);
        self.bytes += self.copied.len() - before;
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        if piece.len() < COPIED {
            return self.write(|copied| copied.extend_from_slice(&piece));
        }
        self.bytes += piece.len();
        self.end_copied();
        self.pieces.push(piece);
    }

    pub(super) fn finish(mut self) -> Pieces {
        self.end_copied();
        Pieces { pieces: self.pieces.into(), bytes: self.bytes }
    }

    fn end_copied(&mut self) {
        if !self.copied.is_empty() {
            self.pieces.push(std::mem::take(&mut self.copied).into());
        }
    }
}

/// A body on its way.
struct Unsent {
    pieces: Pieces,
    next: usize,
    left: u64,
}

impl http_body::Body for Unsent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.pieces.pieces.get(self.next).cloned() else {
            return Poll::Ready(None);
        };
        self.next += 1;
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    #[test]
    fn small_pieces_are_put_together_and_large_ones_stay_where_they_are() {
        let large = Bytes::from(vec![2; COPIED]);
        let mut assembly = Assembly::default();
        assembly.write(|out| out.extend_from_slice(b"head"));
        assembly.push(Bytes::from_static(b"small"));
        assembly.push(large.clone());
        assembly.push(large.clone());
        assembly.push(Bytes::from_static(b"last"));
        let pieces = assembly.finish();
        let all: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
        assert_eq!(all, [b"headsmall", &large[..], &large[..], b"last"]);
        assert!(all[1..3].iter().all(|piece| piece.as_ptr() == large.as_ptr()));
        assert_eq!(pieces.len(), all.concat().len());
    }

    #[test]
    fn a_body_says_how_much_is_left_of_it() {
        let mut assembly = Assembly::default();
        for byte in 0..3 {
            assembly.push(vec![byte; COPIED].into());
        }
        let pieces = assembly.finish();
        let mut body = Unsent { left: pieces.len() as u64, next: 0, pieces };
        let context = &mut Context::from_waker(std::task::Waker::noop());
        for byte in 0..3 {
            assert_eq!(body.size_hint().exact(), Some((3 - u64::from(byte)) * COPIED as u64));
            assert!(!body.is_end_stream());
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(context) else {
                panic!("there is more");
            };
            assert_eq!(frame.into_data().expect("data"), vec![byte; COPIED]);
        }
        assert!(body.is_end_stream());
        assert!(matches!(Pin::new(&mut body).poll_frame(context), Poll::Ready(None)));
    }
}
