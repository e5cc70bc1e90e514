use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::*;

/// Takes the time `work` per key, fails as often as `failures` says, and records its runs.
#[derive(Default)]
struct Recorder {
    work: Duration,
    failures: RefCell<HashMap<&'static str, u32>>,
    action: Action,
    min_interval_of_failures: Duration,
    /// Keys, when their runs began, and since when they were due, from the start.
    begun: RefCell<Vec<(&'static str, Duration, Duration)>>,
    finished: Cell<usize>,
    running: Cell<usize>,
    most_running: Cell<usize>,
    start: Cell<Option<Instant>>,
}

impl Recorder {
    fn new() -> Self {
        Self { start: Cell::new(Some(Instant::now())), ..Self::default() }
    }

    /// When runs of the key began, in milliseconds since the start.
    fn times(&self, key: &str) -> Vec<u128> {
        let begun = self.begun.borrow();
        begun.iter().filter(|(name, ..)| *name == key).map(|(_, at, _)| at.as_millis()).collect()
    }

    /// Since when the key was due at each run, in milliseconds since the start.
    fn due(&self, key: &str) -> Vec<u128> {
        let begun = self.begun.borrow();
        begun.iter().filter(|(name, ..)| *name == key).map(|(.., since)| since.as_millis()).collect()
    }
}

impl Reconciler<&'static str> for Recorder {
    type Error = &'static str;

    async fn reconcile(&self, key: &&'static str, since: Instant) -> Result<Action, &'static str> {
        let start = self.start.get().unwrap();
        self.begun.borrow_mut().push((key, start.elapsed(), since.duration_since(start)));
        self.running.set(self.running.get() + 1);
        self.most_running.set(self.most_running.get().max(self.running.get()));
        tokio::time::sleep(self.work).await;
        self.running.set(self.running.get() - 1);
        self.finished.set(self.finished.get() + 1);
        match self.failures.borrow_mut().get_mut(key) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err("not yet")
            }
            _ => Ok(self.action),
        }
    }

    fn min_interval(&self, _key: &&'static str) -> Duration {
        self.min_interval_of_failures
    }

    fn failed(&self, _key: &&'static str, _error: &&'static str, _pause: Duration) {}
}

/// Runs the workers until this time is over.
async fn run_for(time: Duration, workers: Workers<&'static str>, limit: usize, recorder: &Recorder) {
    let shutdown = CancellationToken::new();
    let timer = async {
        tokio::time::sleep(time).await;
        shutdown.cancel();
    };
    tokio::join!(workers.run(limit, recorder, &shutdown), timer);
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_key_waits_once_and_runs_again_if_it_is_added_while_it_runs() {
    let recorder = Recorder { work: SECOND, ..Recorder::new() };
    let (queue, workers) = work_queue();
    for _ in 0..5 {
        queue.add("a");
    }
    let add_later = async {
        tokio::time::sleep(SECOND / 2).await;
        queue.add("a");
        queue.add("a");
    };
    tokio::join!(run_for(SECOND * 10, workers, 4, &recorder), add_later);
    assert_eq!(recorder.times("a"), [0, 1000]);
    assert_eq!(recorder.most_running.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn so_many_keys_run_at_a_time_as_there_are_workers() {
    let recorder = Recorder { work: SECOND, ..Recorder::new() };
    let (queue, workers) = work_queue();
    for key in ["a", "b", "c", "d", "e"] {
        queue.add(key);
    }
    run_for(SECOND * 10, workers, 2, &recorder).await;
    assert_eq!((recorder.finished.get(), recorder.most_running.get()), (5, 2));
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_backs_off_and_others_go_on() {
    let recorder = Recorder::new();
    recorder.failures.borrow_mut().insert("bad", 3);
    let (queue, workers) = work_queue();
    queue.add("bad");
    queue.add_after("good", Duration::from_millis(100));
    // After a success the next failure has the shortest pause again.
    let fail_again = async {
        tokio::time::sleep(SECOND * 20).await;
        recorder.failures.borrow_mut().insert("bad", 1);
        queue.add("bad");
    };
    tokio::join!(run_for(SECOND * 60, workers, 1, &recorder), fail_again);
    let near = |times: Vec<u128>, expected: &[u128]| {
        assert_eq!(times.len(), expected.len(), "{times:?}");
        assert!(times.iter().zip(expected).all(|(time, wanted)| time.abs_diff(*wanted) < 20), "{times:?}");
    };
    near(recorder.times("bad"), &[0, 500, 1500, 3500, 20_000, 20_500]);
    near(recorder.times("good"), &[100]);
    assert_eq!(recorder.due("bad"), [0, 0, 0, 0, 20_000, 20_000], "due since it was added");
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_that_is_added_all_the_time_does_not_run_all_the_time() {
    let recorder = Recorder::new();
    recorder.failures.borrow_mut().insert("bad", u32::MAX);
    let (queue, workers) = work_queue();
    let keep_adding = async {
        for _ in 0..200 {
            queue.add("bad");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::join!(run_for(SECOND * 2, workers, 1, &recorder), keep_adding);
    assert!((3..=5).contains(&recorder.finished.get()), "{:?}", recorder.times("bad"));
}

#[tokio::test(start_paused = true)]
async fn of_several_times_the_earliest_counts() {
    let recorder = Recorder::new();
    let (queue, workers) = work_queue();
    queue.add_after("a", SECOND * 5);
    queue.add_after("a", SECOND);
    queue.add_after("a", SECOND * 3);
    run_for(SECOND * 10, workers, 1, &recorder).await;
    let times = recorder.times("a");
    assert!(times.len() == 1 && times[0].abs_diff(1000) < 20, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_run_is_at_once_and_others_at_the_interval() {
    let action = Action::await_change().with_min_interval(SECOND);
    let recorder = Recorder { action, work: Duration::from_millis(10), ..Recorder::new() };
    let (queue, workers) = work_queue();
    let keep_adding = async {
        for _ in 0..50 {
            queue.add("a");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::join!(run_for(SECOND * 10, workers, 1, &recorder), keep_adding);
    let times = recorder.times("a");
    assert_eq!(times.len(), 4, "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 1000), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_requeued_without_being_added() {
    let recorder = Recorder { action: Action::requeue(SECOND), ..Recorder::new() };
    let (queue, workers) = work_queue();
    queue.add("a");
    run_for(SECOND * 7 / 2, workers, 1, &recorder).await;
    assert_eq!(recorder.times("a").len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_finishes_what_has_begun_and_begins_nothing() {
    let recorder = Recorder { work: SECOND * 5, ..Recorder::new() };
    let (queue, workers) = work_queue();
    for key in ["a", "b", "c"] {
        queue.add(key);
    }
    run_for(SECOND, workers, 2, &recorder).await;
    assert_eq!((recorder.begun.borrow().len(), recorder.finished.get()), (2, 2));
    queue.add("d");
}

/// A key that comes back at once would otherwise be taken before those that have waited while no worker was free.
#[tokio::test(start_paused = true)]
async fn keys_that_come_again_and_again_do_not_keep_others_waiting() {
    const KEYS: [&str; 20] =
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];
    let action = Action::requeue(Duration::from_millis(50)).with_min_interval(Duration::from_millis(50));
    let recorder = Recorder { action, work: Duration::from_millis(10), ..Recorder::new() };
    let (queue, workers) = work_queue();
    for key in KEYS {
        queue.add(key);
    }
    run_for(SECOND * 10, workers, 1, &recorder).await;
    let runs = KEYS.map(|key| recorder.times(key).len());
    let (least, most) = (runs.iter().min().unwrap(), runs.iter().max().unwrap());
    assert!(least * 2 >= *most && *most > 10, "{runs:?}");
}

/// Nobody takes them while the first list fails, for example.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_added_ten_thousand_times_waits_once() {
    let (queue, workers) = work_queue();
    for _ in 0..10_000 {
        queue.add("a");
    }
    assert_eq!(queue.schedule().len(), 1);
    let recorder = Recorder::new();
    run_for(SECOND, workers, 1, &recorder).await;
    assert_eq!(recorder.finished.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_that_is_added_while_it_runs_pauses_too() {
    let recorder = Recorder { work: SECOND * 2, ..Recorder::new() };
    recorder.failures.borrow_mut().insert("bad", u32::MAX);
    let (queue, workers) = work_queue();
    queue.add("bad");
    let add_later = async {
        tokio::time::sleep(SECOND).await;
        queue.add("bad");
    };
    tokio::join!(run_for(SECOND * 4, workers, 1, &recorder), add_later);
    assert!(recorder.times("bad")[1] >= 2500, "{:?}", recorder.times("bad"));
}

#[tokio::test(start_paused = true)]
async fn failures_keep_to_the_keys_interval() {
    let recorder = Recorder { min_interval_of_failures: SECOND * 5 / 2, ..Recorder::new() };
    recorder.failures.borrow_mut().insert("large", u32::MAX);
    let (queue, workers) = work_queue();
    let keep_adding = async {
        for _ in 0..100 {
            queue.add("large");
            tokio::time::sleep(SECOND / 10).await;
        }
    };
    tokio::join!(run_for(SECOND * 10, workers, 1, &recorder), keep_adding);
    assert!(recorder.finished.get() <= 5, "{:?}", recorder.times("large"));
}
