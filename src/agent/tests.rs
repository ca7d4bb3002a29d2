//! What becomes of a pipeline when its successor does not start.

use super::*;
use crate::sink::loki;

fn config(dir: &Path) -> Config {
    let mut config = Config::default();
    config.agent.state_dir = dir.join("state");
    config.logs.root = dir.join("pods");
    config
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let config = Config::default();
    runtime(&config).expect("a runtime").block_on(future)
}

/// Lines in the store that serves without a sink.
fn stored(dir: &Path) -> Vec<String> {
    let store = dir.join("state/local/default");
    let mut files: Vec<_> =
        std::fs::read_dir(store).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "jsonl"));
    let text = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect::<String>();
    text.lines().map(str::to_owned).collect()
}

async fn wait_for(what: impl Fn() -> bool) {
    for _ in 0..600 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never came");
}

#[test]
fn a_config_that_does_not_start_gives_way_to_the_last_good_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("pods/shop_api-1_u1/api/0.log");
    std::fs::create_dir_all(log.parent().expect("below the root")).expect("made");
    std::fs::write(&log, "2026-11-22T14:00:00.000000001Z stdout F first\n").expect("written");
    let good = config(dir.path());
    // Checked configs have none like it; the refusal comes from the sink itself, when the old pipeline is gone.
    let mut bad = good.clone();
    bad.sink.loki.insert("broken".into(), loki::Config { url: "no url".into(), ..loki::Config::default() });
    run(async {
        let mut lasting = Lasting::new(Arc::default());
        let state = lock_state(&good.agent.state_dir, &lasting.health).await;
        let pipeline = Pipeline::start(&good, None, Legacy { state, marks: None }, &mut lasting, false)
            .unwrap_or_else(|error| panic!("{error}"));
        wait_for(|| stored(dir.path()).len() == 1).await;
        wait_for(|| lasting.health.ready().is_ok()).await;
        let (outcome, legacy) = pipeline.end(HAND_OVER, &mut lasting).await;
        assert_eq!(outcome.expect("drains"), Outcome { flushed: true, aborted: Vec::new() });
        let marks = legacy.as_ref().and_then(|legacy| legacy.marks.clone()).expect("where it stopped");
        assert_eq!(marks.keys().collect::<Vec<_>>(), ["shop_api-1_u1/api/0"]);
        let (runs, pipeline) = replace(good.clone(), bad, legacy, &mut lasting, &mut Reloads::none())
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(runs.sink.loki.is_empty(), "the last good one runs");
        assert!(lasting.health.ready().is_ok(), "and was ready all the time");
        let mut text = std::fs::read_to_string(&log).expect("readable");
        text.push_str("2026-11-22T14:00:00.000000002Z stdout F second\n");
        std::fs::write(&log, text).expect("written");
        wait_for(|| stored(dir.path()).len() >= 2).await;
        pipeline.end(HAND_OVER, &mut lasting).await.0.expect("drains");
    });
    let lines = stored(dir.path());
    assert_eq!(lines.len(), 2, "nothing twice: {lines:?}");
}

#[test]
fn positions_survive_a_hand_over_without_a_state_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("pods/shop_api-1_u1/api/0.log");
    std::fs::create_dir_all(log.parent().expect("below the root")).expect("made");
    std::fs::write(&log, "2026-11-22T14:00:00.000000001Z stdout F first\n").expect("written");
    let mut config = config(dir.path());
    // A file where the directory should be: nothing can be made durable.
    std::fs::write(&config.agent.state_dir, "").expect("written");
    config.sink.local.insert(
        "store".into(),
        local::Config { dir: Some(dir.path().join("store")), ..local::Config::default() },
    );
    run(async {
        let mut lasting = Lasting::new(Arc::default());
        let state = lock_state(&config.agent.state_dir, &lasting.health).await;
        assert!(state.is_err());
        let start = |legacy, lasting: &mut Lasting, again| {
            Pipeline::start(&config, None, legacy, lasting, again).unwrap_or_else(|error| panic!("{error}"))
        };
        let pipeline = start(Legacy { state, marks: None }, &mut lasting, false);
        let registry = Arc::clone(&lasting.registry);
        let sent = || registry.load().as_ref().map_or(0, |all| all.accounts().1.sent);
        wait_for(|| sent() > 0).await;
        let (outcome, legacy) = pipeline.end(HAND_OVER, &mut lasting).await;
        outcome.expect("drains");
        let pipeline = start(legacy.expect("what it knew"), &mut lasting, true);
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(sent(), 0, "what was acknowledged is not read again");
        pipeline.end(HAND_OVER, &mut lasting).await.0.expect("drains");
    });
}
