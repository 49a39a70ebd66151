//! The driver `docker` under an engine that hangs, floods, lies and dies: it says so within a bound, takes
//! no memory for it, and sends no signal to a process that is not the worker's. What a real engine does is
//! in `main.rs`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diarwatch_agent::restart::docker::DockerDriver;
use diarwatch_agent::restart::{Driver, Found, News, Signal};

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than the driver may ever hold of what an engine sends.
const FLOOD_BYTES: usize = 256 << 20;

/// What the engine sends to a question for the container, and in its stream of events.
#[derive(Clone)]
enum Says {
    /// Nothing, for ever.
    Nothing,
    /// This, and ends.
    This(String),
    /// This again and again, at most [`FLOOD_BYTES`] of it, and then nothing more.
    Endless(&'static str),
    /// This, and then nothing more.
    AndWaits(String),
}

struct Engine {
    directory: tempfile::TempDir,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Engine {
    fn new(container: Says, events: Says) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("docker.sock")).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, container, events) = (Arc::clone(&seen), container.clone(), events.clone());
                // Who asked may be gone.
                std::thread::spawn(move || drop(answer(stream, &seen, &container, &events)));
            }
        });
        Self { directory, requests }
    }

    fn driver(&self) -> DockerDriver {
        let socket = self.directory.path().join("docker.sock");
        let text = format!(
            "name = \"w\"\ndriver = \"docker\"\ncontainer = \"w\"\ndocker_socket = \"{}\"\n\
             [readiness]\nurl = \"http://127.0.0.1:9/\"\n",
            socket.display()
        );
        DockerDriver::new(diarwatch_shared::config::parse(Path::new("a.toml"), &text).unwrap())
    }
}

fn answer(
    mut stream: UnixStream,
    seen: &Mutex<Vec<String>>,
    container: &Says,
    events: &Says,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let head = lines.next().transpose()?.unwrap_or_default();
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let says = if head.contains(" /events?") { events } else { container };
    seen.lock().unwrap().push(head);
    let wait = || std::thread::sleep(PATIENCE * 2);
    if matches!(says, Says::Nothing) {
        wait();
    }
    write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
    match says {
        Says::Nothing => {}
        Says::This(text) => stream.write_all(text.as_bytes())?,
        Says::AndWaits(text) => {
            stream.write_all(text.as_bytes())?;
            wait();
        }
        Says::Endless(text) => {
            let block = text.repeat((1 << 16) / text.len());
            for _ in 0..FLOOD_BYTES / block.len() {
                stream.write_all(block.as_bytes())?;
            }
            wait();
        }
    }
    Ok(())
}

/// A container that runs as this process.
fn running(pid: u32) -> Says {
    Says::This(format!(
        r#"{{"Id":"0a","State":{{"Running":true,"Pid":{pid},"StartedAt":"2026-01-01T00:00:00Z"}}}}"#
    ))
}

fn quiet() -> Says {
    Says::AndWaits(String::new())
}

async fn news(driver: &mut DockerDriver) -> News {
    tokio::time::timeout(PATIENCE, driver.news()).await.expect("there is news")
}

fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_given_up_with_words() {
    let engine = Engine::new(Says::Nothing, quiet());
    let mut driver = engine.driver();
    let error = tokio::time::timeout(PATIENCE, driver.look()).await.unwrap().unwrap_err();
    assert!(error.contains("no answer within 5 s"), "{error}");
    let error = tokio::time::timeout(PATIENCE, driver.start()).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("start container w: ") && error.contains("no answer within 10 s"), "{error}");
}

#[tokio::test]
async fn an_engine_that_dies_or_is_another_service_is_lost() {
    let gone = Engine::new(running(std::process::id()), Says::This(String::new()));
    let page = Engine::new(running(std::process::id()), Says::Endless("<html>\n"));
    for (engine, words) in [(gone, "it ended the stream"), (page, "is another service there?")] {
        let mut driver = engine.driver();
        assert!(matches!(driver.look().await, Ok(Found::Running(_))));
        let News::Lost { reason } = news(&mut driver).await else { panic!("it is gone") };
        assert!(reason.contains(words), "{reason}");
    }
}

#[tokio::test]
async fn a_flood_of_whatever_kind_takes_no_memory() {
    const START: &str =
        "{\"Action\":\"start\",\"timeNano\":1,\"Actor\":{\"ID\":\"0a\",\"Attributes\":{\"name\":\"w\"}}}\n";
    let me = std::process::id();
    for flood in ["x", START] {
        let engine = Engine::new(running(me), Says::Endless(flood));
        let mut driver = engine.driver();
        driver.look().await.unwrap();
        let told = tokio::time::timeout(Duration::from_secs(2), driver.news()).await;
        assert!(told.is_err(), "nothing happened to it: {told:?}");
    }
    let engine = Engine::new(Says::Endless(" "), quiet());
    let error = engine.driver().look().await.unwrap_err();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
    assert!(peak_bytes() < FLOOD_BYTES / 2, "{} bytes", peak_bytes());
}

#[tokio::test]
async fn a_process_that_is_not_there_or_not_the_containers_is_not_believed_in() {
    let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
    let gone = child.id();
    child.wait().unwrap();
    let engine = Engine::new(running(gone), quiet());
    let error = engine.driver().look().await.unwrap_err();
    assert!(error.contains(&format!("its process {gone} is not there; restart the engine")), "{error}");
    for pid in [0, 1] {
        let engine = Engine::new(running(pid), Says::This(String::new()));
        let found = engine.driver().look().await.unwrap();
        assert!(matches!(found, Found::Stopped { .. }), "process {pid} is no container's: {found:?}");
    }
}

#[tokio::test]
async fn what_an_engine_calls_its_container_never_becomes_another_path() {
    let bad = r#"{"Id":"0a/../../images/prune?x=","State":{"Running":true,"Pid":7}}"#;
    let engine = Engine::new(Says::This(bad.into()), quiet());
    let mut driver = engine.driver();
    let error = driver.look().await.unwrap_err();
    assert!(error.contains("is another service there?"), "{error}");
    driver.signal(Signal::Kill).await.unwrap();
    let requests = engine.requests.lock().unwrap();
    assert!(requests.iter().all(|request| !request.contains("prune")), "{requests:?}");
}
