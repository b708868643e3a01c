use std::collections::VecDeque;

use futures::FutureExt;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(31 * 60);

/// A body of some frames that never ends. `dropped` is set when it is dropped.
struct Frames {
    frames: VecDeque<Bytes>,
    dropped: Arc<Mutex<bool>>,
}

impl Drop for Frames {
    fn drop(&mut self) {
        *self.dropped.lock() = true;
    }
}

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
            None => Poll::Pending,
        }
    }
}

/// Returns a paced body of frames of these sizes.
fn paced(sizes: &[usize]) -> (PacedBody, Arc<Mutex<bool>>) {
    let dropped = Arc::new(Mutex::new(false));
    let frames = sizes.iter().map(|size| (0..*size).map(|i| (i % 251) as u8).collect()).collect();
    let frames = Frames { frames, dropped: dropped.clone() };
    (PacedBody::start(Body::new(frames), Instant::now() + LONGEST), dropped)
}

async fn next(body: &mut PacedBody) -> Option<Result<Frame<Bytes>, Status>> {
    std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

async fn data(body: &mut PacedBody) -> Bytes {
    next(body).await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test]
async fn frame_is_passed_on_in_pieces() {
    for size in [1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 5 * PIECE_BYTES + 7] {
        let (mut body, _) = paced(&[size, 3]);
        let mut read = Vec::new();
        while read.len() < size {
            let piece = data(&mut body).await;
            assert!(piece.len() <= PIECE_BYTES);
            read.extend_from_slice(&piece);
        }
        let expected: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        assert!(read == expected, "{size}");
        assert_eq!(data(&mut body).await.len(), 3);
        assert!(next(&mut body).now_or_never().is_none(), "the body has more to come");
    }
}

/// Bytes of a message. `dropped` is set when none of them is in memory.
struct MessageBytes {
    bytes: Vec<u8>,
    dropped: Arc<Mutex<bool>>,
}

impl AsRef<[u8]> for MessageBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for MessageBytes {
    fn drop(&mut self) {
        *self.dropped.lock() = true;
    }
}

#[tokio::test]
async fn pieces_do_not_keep_the_message() {
    let dropped = Arc::new(Mutex::new(false));
    let bytes = vec![7; 3 * PIECE_BYTES];
    let message = Bytes::from_owner(MessageBytes { bytes, dropped: dropped.clone() });
    let frames = Frames { frames: [message].into(), dropped: Arc::default() };
    let mut body = PacedBody::start(Body::new(frames), Instant::now() + LONGEST);
    let first = data(&mut body).await;
    let second = data(&mut body).await;
    assert!(!*dropped.lock(), "a piece is left");
    let third = data(&mut body).await;
    // The library holds all of them.
    assert!(*dropped.lock());
    drop(second);
    assert_eq!((first.len(), third.len()), (PIECE_BYTES, PIECE_BYTES));
}

#[tokio::test(start_paused = true)]
async fn response_that_is_not_read_ends_with_an_error() {
    let (mut body, dropped) = paced(&[10 * PIECE_BYTES]);
    data(&mut body).await;
    tokio::time::sleep(59 * SECOND).await;
    data(&mut body).await;
    tokio::time::sleep(59 * SECOND).await;
    assert!(!*dropped.lock(), "the reader took a piece");
    tokio::time::sleep(3 * SECOND).await;
    assert!(*dropped.lock(), "its memory is released while nothing is read");
    let trailers = next(&mut body).await.unwrap().unwrap().into_trailers().unwrap();
    let refusal = Refusal::from(Status::from_header_map(&trailers).unwrap());
    assert_eq!(refusal.reason, Reason::DeadlineExceeded);
    assert!(refusal.message.contains("took nothing for 60 s"), "{refusal}");
    assert!(next(&mut body).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn response_to_slow_reader_ends_after_longest_time() {
    let (mut body, dropped) = paced(&[100 * PIECE_BYTES]);
    let begun = Instant::now();
    while begun.elapsed() < LONGEST - 60 * SECOND {
        data(&mut body).await;
        tokio::time::sleep(59 * SECOND).await;
    }
    assert!(!*dropped.lock(), "{:?}", begun.elapsed());
    data(&mut body).await;
    tokio::time::sleep(40 * SECOND).await;
    assert!(begun.elapsed() > LONGEST && *dropped.lock(), "{:?}", begun.elapsed());
    let trailers = next(&mut body).await.unwrap().unwrap().into_trailers().unwrap();
    let refusal = Refusal::from(Status::from_header_map(&trailers).unwrap());
    assert_eq!(refusal.reason, Reason::DeadlineExceeded);
    assert!(refusal.message.contains("exceeded its time limit"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn response_that_waits_for_rows_does_not_end() {
    let (mut body, dropped) = paced(&[10]);
    data(&mut body).await;
    let waiting = tokio::spawn(async move { next(&mut body).await.map(|_| ()) });
    tokio::time::sleep(600 * SECOND).await;
    assert!(!waiting.is_finished() && !*dropped.lock());
    waiting.abort();
}
