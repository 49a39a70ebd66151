//! Directories whose files come and go, names against patterns, and a disk that hangs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::config::parse;
use diarwatch_shared::reading::Missing;
use proptest::prelude::*;

use super::*;

fn config(path: &Path, more: &str) -> DirectoryConfig {
    let text = format!("path = \"{}\"\nwaiting = \"*.wav\"\n{more}", path.display());
    parse(Path::new("agent.toml"), &text).unwrap()
}

fn all(path: &Path) -> Directory {
    let more = "processing = \"*.wav.busy\"\ncompleted = \"done/*.json\"\nfailed = \"failed/*\"\nexclude = [\"*.part*\"]\n";
    Directory::new(&config(path, more))
}

fn write(path: &Path, names: &[&str]) {
    for name in names {
        std::fs::write(path.join(name), "x").unwrap();
    }
}

/// A directory for jobs, with its two sub-directories.
fn jobs() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for below in ["done", "failed"] {
        std::fs::create_dir(directory.path().join(below)).unwrap();
    }
    directory
}

#[tokio::test]
async fn where_a_file_is_says_how_far_its_job_is() {
    let directory = jobs();
    let path = directory.path();
    write(path, &["a.wav", "b.wav", "c.wav.busy", "d.part.wav", ".e.wav", "f.txt"]);
    write(path, &["done/old.json", "failed/old.txt"]);
    std::fs::create_dir(path.join("g.wav")).unwrap();
    let mut source = all(path);
    let now = clock::now().plus(Duration::from_secs(60));
    let look = source.look(now).await.unwrap();
    assert_eq!((look.waiting, look.processing), (Ok(2.0), Ok(1.0)));
    assert_eq!((look.completed_total, look.failed_total), (Ok(0.0), Ok(0.0)), "before the agent came");
    let oldest = look.oldest_seconds.unwrap();
    assert!((59.0..90.0).contains(&oldest), "{oldest}");

    std::fs::remove_file(path.join("c.wav.busy")).unwrap();
    std::fs::rename(path.join("a.wav"), path.join("a.wav.busy")).unwrap();
    write(path, &["done/c.json", "failed/b.txt"]);
    let look = source.look(now).await.unwrap();
    assert_eq!((look.waiting, look.processing), (Ok(1.0), Ok(1.0)));
    assert_eq!((look.completed_total, look.failed_total), (Ok(1.0), Ok(1.0)));

    // What was done is cleared away, and the same name is used again.
    std::fs::remove_file(path.join("done/old.json")).unwrap();
    write(path, &["keeps-the-inode"]);
    std::fs::rename(path.join("keeps-the-inode"), path.join("done/c.json")).unwrap();
    let look = source.look(now).await.unwrap();
    assert_eq!(look.completed_total, Ok(2.0));
}

#[tokio::test]
async fn what_is_not_configured_is_no_number_and_an_empty_directory_has_no_age() {
    let directory = jobs();
    let look = Directory::new(&config(directory.path(), "")).look(clock::now()).await.unwrap();
    let none = Err(Missing::NotSupported);
    assert_eq!((look.processing, look.completed_total, look.failed_total), (none, none, none));
    assert_eq!((look.waiting, look.oldest_seconds), (Ok(0.0), Ok(0.0)));
}

#[tokio::test]
async fn a_directory_that_is_gone_says_how_to_mend_it_and_is_seen_when_it_is_back() {
    let directory = jobs();
    let mut source = all(directory.path());
    std::fs::rename(directory.path().join("done"), directory.path().join("other")).unwrap();
    let problem = source.look(clock::now()).await.unwrap_err();
    assert!(problem.contains("/done: No such file") && problem.contains("create it"), "{problem}");
    std::fs::rename(directory.path().join("other"), directory.path().join("done")).unwrap();
    assert_eq!(source.look(clock::now()).await.unwrap().waiting, Ok(0.0));
}

#[tokio::test]
async fn more_entries_than_are_looked_at_are_told() {
    let directory = jobs();
    let path = directory.path();
    write(path, &["1.wav", "2.wav", "3.txt", "4.txt"]);
    let mut source = Directory::new(&config(path, ""));
    // Four files and two directories.
    source.plan.entries_max = 6;
    assert_eq!(source.look(clock::now()).await.unwrap().doubt, None);
    source.plan.entries_max = 5;
    let doubt = source.look(clock::now()).await.unwrap().doubt.unwrap();
    let expected = format!("{} has more than 5 entries", path.display());
    assert!(doubt.starts_with(&expected), "{doubt}");
}

/// Threads that were sent to the disk that hangs, and those that may come back.
static SENT: AtomicUsize = AtomicUsize::new(0);
static BACK: AtomicUsize = AtomicUsize::new(0);

#[expect(clippy::unnecessary_wraps, reason = "stands in for the disk, which may fail")]
fn hang(_: &Plan) -> Result<Listing, String> {
    let turn = SENT.fetch_add(1, Ordering::SeqCst);
    while BACK.load(Ordering::SeqCst) <= turn {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(Listing { files: vec![(Figure::Waiting, vec![])], overfull: None })
}

#[tokio::test]
async fn a_directory_that_hangs_holds_one_thread_and_no_neighbour() {
    let (slow, quick) = (jobs(), jobs());
    let mut hanging = Directory { read: hang, ..all(slow.path()) };
    let mut neighbour = all(quick.path());
    let cut_off = tokio::time::timeout(Duration::from_millis(50), hanging.look(UnixMicros(7))).await;
    assert!(cut_off.is_err(), "the caller bounds the first look");
    for _ in 0..100 {
        assert_eq!(neighbour.look(clock::now()).await.unwrap().waiting, Ok(0.0));
        let problem = hanging.look(clock::now()).await.unwrap_err();
        assert!(problem.contains("no answer since 1970") && problem.contains("mount"), "{problem}");
    }
    assert_eq!(SENT.load(Ordering::SeqCst), 1, "no second thread into a disk that hangs");
    BACK.store(usize::MAX, Ordering::SeqCst);
    while hanging.look(clock::now()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(SENT.load(Ordering::SeqCst), 2, "the late answer is not told; a new one is");
}

#[test]
fn a_pattern_that_cannot_work_is_refused_with_its_key() {
    let faults = |more: &str| {
        let mut faults = Faults::default();
        config(Path::new("/srv"), more).check(&mut faults);
        faults.0.into_iter().map(|fault| fault.field).collect::<Vec<_>>()
    };
    assert_eq!(faults("processing = \"busy/*.wav\"\nexclude = [\"*.part\"]\n"), [""; 0]);
    for bad in ["", "/etc/*", "../*.wav", "done/../../*", "*/x.wav", "done/"] {
        assert_eq!(faults(&format!("completed = \"{bad}\"\n")), ["directory.completed"], "{bad}");
    }
    assert_eq!(faults("exclude = [\"\", \"a/b\"]\n"), ["directory.exclude", "directory.exclude"]);
    let mut relative = Faults::default();
    config(Path::new("jobs"), "").check(&mut relative);
    assert_eq!(relative.0[0].field, "directory.path");
}

#[test]
fn a_star_is_any_text_and_a_question_mark_one_character() {
    for (pattern, name, expected) in [
        ("*.wav", "a.wav", true),
        ("*.wav", ".wav", true),
        ("*.wav", "a.wav.part", false),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-b-b-", false),
        ("?.wav", "話.wav", true),
        ("?.wav", "ab.wav", false),
        ("**", "", true),
        ("", "a", false),
        ("[a].wav", "a.wav", false),
    ] {
        assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
    }
    let (pattern, name) = ("a*".repeat(100), "a".repeat(250));
    assert!(!fits(&format!("{pattern}b"), &name), "and it takes no time that explodes");
}

/// The same, written as it is meant.
fn meant(pattern: &[char], name: &[char]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some(('*', rest)) => (0..=name.len()).any(|taken| meant(rest, &name[taken..])),
        Some((letter, rest)) => {
            name.first().is_some_and(|first| *letter == '?' || letter == first) && meant(rest, &name[1..])
        }
    }
}

proptest! {
    #[test]
    fn names_fit_as_it_is_meant(pattern in "[ab*?]{0,8}", name in "[ab]{0,10}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        prop_assert_eq!(fits(&pattern, &name), meant(&chars(&pattern), &chars(&name)));
    }

    #[test]
    fn files_that_appear_are_counted_once_whatever_is_cleared_away(
        looks in prop::collection::vec(prop::collection::btree_set(0_u64..20, 0..20), 1..20)
    ) {
        let mut appeared = Appeared::default();
        let (mut expected, mut before) = (0, looks[0].clone());
        for look in looks {
            let files: Vec<Found> = look.iter().map(|key| Found { key: *key, changed: None }).collect();
            expected += look.difference(&before).count();
            prop_assert_eq!(appeared.take(&files), expected);
            before = look;
        }
    }
}
