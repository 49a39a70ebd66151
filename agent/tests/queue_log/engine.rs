//! A stand-in for the Docker Engine on a Unix socket: one container, whether it runs, and its log as the
//! engine's documentation of `GET /containers/NAME/json` and `/logs` describes it: pieces with a header of
//! eight bytes, or raw with a terminal, each line with its time, followed while the container runs. It can
//! hang, die and come back, and not know the container. It ends with the test.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use diarwatch_shared::clock;

/// The container's name.
pub const NAME: &str = "pyannote";
/// Between two looks at the log that is followed.
const LOOK: Duration = Duration::from_millis(10);

/// What the engine does with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Does {
    Answers,
    /// Keeps it and says nothing.
    Hangs,
    /// Has no such container.
    KnowsNone,
    /// Sends a log that is none, without end.
    Floods,
}

struct State {
    does: Does,
    alive: bool,
    running: bool,
    /// When the container was started; changes with each start.
    started: String,
    terminal: bool,
    /// The container's output: time, stream, bytes of one line without its end.
    log: Vec<(String, u8, String)>,
}

pub struct Engine {
    directory: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

impl Engine {
    /// An engine with a container that runs.
    pub fn start(terminal: bool) -> Self {
        let state = State {
            does: Does::Answers,
            alive: true,
            running: true,
            started: stamp(0),
            terminal,
            log: Vec::new(),
        };
        let engine = Self { directory: tempfile::tempdir().unwrap(), state: Arc::new(Mutex::new(state)) };
        engine.listen();
        engine
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    pub fn now(&self, does: Does) {
        self.state().does = does;
    }

    /// The engine's process ends, and its connections with it; the containers run on.
    pub fn dies(&self) {
        self.state().alive = false;
        std::fs::remove_file(self.socket()).unwrap();
    }

    pub fn comes_back(&self) {
        // Connections of before have ended by now.
        std::thread::sleep(LOOK * 5);
        self.state().alive = true;
        self.listen();
    }

    /// The container writes lines, to stdout and stderr by turns.
    pub fn says(&self, lines: &[&str]) {
        let mut state = self.state();
        for line in lines {
            let number = state.log.len();
            let stream = if number.is_multiple_of(2) { 1 } else { 2 };
            state.log.push((stamp(number), stream, (*line).to_owned()));
        }
    }

    /// The container's process ends, and its followed log with it.
    pub fn container_stops(&self) {
        self.state().running = false;
    }

    /// The same container is started anew; its log goes on.
    pub fn container_starts(&self) {
        let mut state = self.state();
        state.running = true;
        state.started = stamp(0);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn listen(&self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let state = Arc::clone(&self.state);
        std::thread::spawn(move || {
            while lives(&state) {
                if let Ok((stream, _)) = listener.accept() {
                    let state = Arc::clone(&state);
                    stream.set_nonblocking(false).unwrap();
                    // Who asked may be gone.
                    std::thread::spawn(move || drop(serve(stream, &state)));
                }
                std::thread::sleep(LOOK);
            }
        });
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.state().alive = false;
    }
}

/// Nanoseconds, as the engine writes them; lines of one millisecond stay in order.
fn stamp(number: usize) -> String {
    format!("{}{number:06}Z", clock::now().to_string().trim_end_matches('Z'))
}

fn lives(state: &Mutex<State>) -> bool {
    state.lock().unwrap().alive
}

fn serve(mut stream: UnixStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut request = BufReader::new(stream.try_clone()?).lines();
    let head = request.next().transpose()?.unwrap_or_default();
    while request.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let path = head.split(' ').nth(1).unwrap_or_default();
    let does = state.lock().unwrap().does;
    match does {
        Does::Hangs => {
            while lives(state) && state.lock().unwrap().does == Does::Hangs {
                std::thread::sleep(LOOK);
            }
            Ok(())
        }
        Does::KnowsNone => {
            let body = format!("{{\"message\":\"No such container: {NAME}\"}}");
            answer(&mut stream, "404 Not Found", &body)
        }
        _ if path == format!("/containers/{NAME}/json") => {
            let state = state.lock().unwrap();
            let (running, started, terminal) = (state.running, &state.started, state.terminal);
            let body = format!(
                "{{\"Id\":\"0a1b\",\"State\":{{\"Status\":\"any\",\"Running\":{running},\"StartedAt\":\"{started}\"}},\
                 \"Config\":{{\"Tty\":{terminal}}}}}"
            );
            answer(&mut stream, "200 OK", &body)
        }
        _ if path.starts_with(&format!("/containers/{NAME}/logs?")) => log(&mut stream, path, state),
        _ => answer(&mut stream, "400 Bad Request", "{\"message\":\"page not found\"}"),
    }
}

fn answer(stream: &mut UnixStream, status: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n")?;
    write!(stream, "connection: close\r\n\r\n{body}")
}

fn log(stream: &mut UnixStream, path: &str, state: &Mutex<State>) -> std::io::Result<()> {
    let asked =
        |key: &str| path.split(['?', '&']).find_map(|part| part.strip_prefix(key)).unwrap_or_default();
    assert_eq!((asked("stdout="), asked("stderr="), asked("timestamps=")), ("1", "1", "1"));
    let (follow, since) = (asked("follow=") == "1", asked("since=").parse::<f64>().unwrap());
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.docker.raw-stream\r\n")?;
    write!(stream, "transfer-encoding: chunked\r\n\r\n")?;
    let (mut sent, began) = (0, state.lock().unwrap().started.clone());
    loop {
        let (fresh, terminal, over, floods) = {
            let state = state.lock().unwrap();
            let fresh = state.log.get(sent..).unwrap_or_default().to_vec();
            let over = !follow || !state.running || state.started != began;
            if !state.alive {
                return Ok(());
            }
            (fresh, state.terminal, over, state.does == Does::Floods)
        };
        while floods && lives(state) {
            chunk(stream, &vec![b'x'; 1 << 16])?;
        }
        for (at, number, line) in &fresh {
            sent += 1;
            if seconds(at) < since {
                continue;
            }
            if terminal {
                chunk(stream, format!("{at} {line}\r\n").as_bytes())?;
                continue;
            }
            // In two pieces, the second of which comes in two chunks.
            let text = format!("{at} {line}\n");
            let (one, two) = text.split_at(text.floor_char_boundary(text.len() - 4));
            chunk(stream, &piece(*number, one.as_bytes()))?;
            let two = piece(*number, two.as_bytes());
            let (head, tail) = two.split_at(5);
            chunk(stream, head)?;
            chunk(stream, tail)?;
        }
        if over {
            return write!(stream, "0\r\n\r\n");
        }
        std::thread::sleep(LOOK);
    }
}

fn piece(stream: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[stream, 0, 0, 0], length.as_slice(), bytes].concat()
}

fn chunk(stream: &mut UnixStream, bytes: &[u8]) -> std::io::Result<()> {
    let length = bytes.len();
    stream.write_all(&[format!("{length:x}\r\n").as_bytes(), bytes, b"\r\n"].concat())?;
    stream.flush()
}

/// Seconds since 1970 of a time of today or yesterday, which is all that a test has.
fn seconds(at: &str) -> f64 {
    let midnight = clock::now().to_string();
    let of_day = |text: &str| {
        let mut parts = text[11..].trim_end_matches('Z').split(':').map(|part| part.parse::<f64>().unwrap());
        let mut next = || parts.next().unwrap();
        next() * 3_600.0 + next() * 60.0 + next()
    };
    let now = clock::now().0 as f64 / 1e6;
    let today = now - of_day(&midnight);
    let day = if at[..10] == midnight[..10] { 0.0 } else { 86_400.0 };
    today - day + of_day(at)
}
