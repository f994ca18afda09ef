use super::*;
use std::fs;
use std::future::Future;
use std::time::Instant;

const FAST: FileWatchConfig =
    FileWatchConfig { every: Duration::from_millis(5), settle: Duration::from_millis(2) };
const FIRST: &str = "live_release = \"release-1\"\n";
const SECOND: &str = "live_release = \"release-2\"\n";
const BROKEN: &str = "live_release = 7\n";

struct World {
    dir: tempfile::TempDir,
    handle: DiscoveryHandle,
    watch: FileWatch,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("d.toml"), FIRST).unwrap();
        let (handle, watch) = watch_file(dir.path().join("d.toml"), FAST).unwrap();
        Self { dir, handle, watch }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("d.toml")
    }

    fn live(&self) -> String {
        self.handle.current().live_release().map_or_else(String::new, ToString::to_string)
    }

    /// Looks until `condition` holds; fails after 10 s.
    async fn until(&self, condition: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let status = self.handle.status();
            if condition(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "never came: {status:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

use crate::publish::SourceStatus;

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn an_edit_in_place_and_a_rename_are_published() {
    run(async {
        let world = World::new();
        assert_eq!((world.live().as_str(), world.handle.current().version()), ("release-1", 1));
        let mut changes = world.handle.subscribe();
        fs::write(world.path(), SECOND).unwrap();
        changes.changed().await.unwrap();
        assert_eq!((world.live().as_str(), world.handle.current().version()), ("release-2", 2));

        let beside = world.dir.path().join("d.toml.new");
        fs::write(&beside, FIRST).unwrap();
        fs::rename(&beside, world.path()).unwrap();
        changes.changed().await.unwrap();
        assert_eq!((world.live().as_str(), world.handle.current().version()), ("release-1", 3));
        assert_eq!(world.handle.status().changes, 2);
    });
}

#[test]
fn equal_content_is_no_change() {
    run(async {
        let world = World::new();
        let before = world.handle.status().last_good;
        fs::write(world.path(), format!("# a comment\n\n{FIRST}")).unwrap();
        let status = world.until(|status| status.last_good > before).await;
        assert_eq!((status.changes, status.version, status.refused), (0, 1, 0));
    });
}

#[test]
fn a_broken_edit_keeps_the_last_good_state_and_recovers() {
    run(async {
        let world = World::new();
        let good = world.handle.current();
        fs::write(world.path(), BROKEN).unwrap();
        let status = world.until(|status| status.last_error.is_some()).await;
        assert_eq!(
            status.last_error.unwrap(),
            format!(
                "{}:1:16: live_release is 7, expected a text such as \"release-3630\", 1 to 128 of A-Z a-z 0-9 . _ -",
                world.path().display()
            )
        );
        assert_eq!(status.refused, 1);
        assert!(std::sync::Arc::ptr_eq(&good, &world.handle.current()));

        // Seen at many looks, counted once: the next distinct error is number two.
        fs::write(world.path(), format!("{BROKEN}#")).unwrap();
        fs::write(world.path(), "live_release = 8").unwrap();
        let status = world.until(|status| status.refused > 1).await;
        assert_eq!(status.refused, 2);

        fs::write(world.path(), SECOND).unwrap();
        let status = world.until(|status| status.last_error.is_none()).await;
        assert_eq!((status.version, status.changes, world.live().as_str()), (2, 1, "release-2"));
    });
}

#[test]
fn a_broken_edit_taken_back_is_no_change() {
    run(async {
        let world = World::new();
        fs::write(world.path(), BROKEN).unwrap();
        world.until(|status| status.last_error.is_some()).await;
        fs::write(world.path(), FIRST).unwrap();
        let status = world.until(|status| status.last_error.is_none()).await;
        assert_eq!((status.version, status.changes), (1, 0));
    });
}

#[test]
fn a_vanished_file_keeps_the_last_good_state() {
    run(async {
        let world = World::new();
        fs::remove_file(world.path()).unwrap();
        let status = world.until(|status| status.last_error.is_some()).await;
        assert_eq!(
            status.last_error.unwrap(),
            format!(
                "{}: cannot be read (No such file or directory (os error 2)), \
                 expected a TOML file with shards, peers, live_release and pins",
                world.path().display()
            )
        );
        assert_eq!(world.live(), "release-1");
        fs::write(world.path(), SECOND).unwrap();
        world.until(|status| status.last_error.is_none()).await;
        assert_eq!(world.live(), "release-2");
    });
}

#[test]
fn content_is_believed_only_when_it_is_seen_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.toml");
    fs::write(&path, FIRST).unwrap();
    let bytes = read_bytes(&path).unwrap();
    let mut eye = Eye {
        path: path.clone(),
        stamp: FileStamp::of(&path),
        settled: Ok(bytes),
        pending: None,
        valid: true,
    };
    assert!(matches!(eye.look(), Sight::StillGood));
    // A writer that truncates first: the empty file is valid, but it never shows.
    fs::write(&path, "").unwrap();
    assert!(matches!(eye.look(), Sight::Moving));
    fs::write(&path, SECOND).unwrap();
    assert!(matches!(eye.look(), Sight::Moving));
    assert!(matches!(eye.look(), Sight::Good(_)));
    assert!(matches!(eye.look(), Sight::StillGood));
    fs::remove_file(&path).unwrap();
    assert!(matches!(eye.look(), Sight::Moving));
    assert!(matches!(eye.look(), Sight::Bad(_)));
    assert!(matches!(eye.look(), Sight::StillBad));
}

#[test]
fn a_stopped_watch_leaves_the_snapshot() {
    run(async {
        let World { dir, handle, watch } = World::new();
        let mut changes = handle.subscribe();
        watch.stop().await;
        assert!(changes.changed().await.is_err());
        assert_eq!(handle.current().version(), 1);
        drop(dir);

        let World { dir: _dir, handle, watch } = World::new();
        drop(watch);
        assert!(handle.subscribe().changed().await.is_err());
    });
}

#[test]
fn a_file_that_is_broken_at_the_start_is_an_error() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let missing = watch_file(dir.path().join("d.toml"), FAST).unwrap_err();
        assert!(matches!(missing, FileError::Unreadable { .. }));
        fs::write(dir.path().join("d.toml"), BROKEN).unwrap();
        let broken = watch_file(dir.path().join("d.toml"), FAST).unwrap_err();
        assert!(matches!(broken, FileError::Invalid { .. }));
    });
}
