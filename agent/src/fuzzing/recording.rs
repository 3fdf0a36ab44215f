//! A recording, replayed; written anew and read again it says the same.

use super::event;
use crate::pipeline::Pipeline;
use crate::pipeline::recording::{Player, Recorder};
use crate::span::tracker::Settings;

pub(super) fn run(bytes: &[u8]) {
    let Ok(mut player) = Player::new(bytes) else { return };
    let mut pipeline = Pipeline::new(Settings::default(), player.seed());
    let mut spans = Vec::new();
    let mut copy = Vec::new();
    let mut recorder = Recorder::new(&mut copy, player.seed()).expect("a vector takes all");
    let mut steps = 0;
    while let Ok(Some(step)) = player.next_step() {
        steps += 1;
        recorder.write(&step).expect("a vector takes all");
        pipeline.step(&step, &mut spans);
    }
    let mut again = Player::new(copy.as_slice()).expect("just written");
    let mut player = Player::new(bytes).expect("read before");
    for _ in 0..steps {
        let first = player.next_step().expect("read before");
        let second = again.next_step().expect("just written");
        // A number that is none equals nothing, not even itself.
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }
    assert!(again.next_step().expect("the end").is_none());
    event::end(pipeline, spans);
}
