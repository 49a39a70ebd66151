//! Servers for the tests of queues: PostgreSQL and Redis as Debian ships them, each in a directory of
//! its own and on a socket in it; an HTTP server that says what a test wants; and one that lies. Each
//! ends with the test that started it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{pid_of, until};

/// Whom servers run as when the tests run as root, which PostgreSQL refuses: nobody.
const NOBODY: u32 = 65_534;

/// A command that ends with the test, as nobody where it would be root.
fn server(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=QUIT");
    if rustix::process::getuid().is_root() {
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()]);
    }
    command.arg(program).stdin(Stdio::null());
    command
}

/// A directory that servers may write.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    if rustix::process::getuid().is_root() {
        chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    directory
}

/// The program of a name: on the path, or where Debian keeps PostgreSQL's.
fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.into_iter().map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What says that a test could not be run here.
pub fn skipped<T>(package: &str) -> Option<T> {
    println!("SKIPPED: {package} is not installed here; .ci/install installs it");
    None
}

/// A PostgreSQL of its own.
pub struct Postgres {
    directory: tempfile::TempDir,
    running: Option<Child>,
}

impl Postgres {
    pub const PASSWORD: &str = "hunter2 and more";

    /// A running server with a user `diarwatch` and a database `postgres`; none where it is not installed.
    pub fn start() -> Option<Self> {
        let (Some(initdb), Some(_), Some(_)) = (found("initdb"), found("postgres"), found("psql")) else {
            return skipped("postgresql");
        };
        let directory = directory();
        let password = directory.path().join("password");
        std::fs::write(&password, Self::PASSWORD).unwrap();
        let made = server(&initdb)
            .args([
                "--auth=scram-sha-256",
                "--username=diarwatch",
                "--no-sync",
                "--no-locale",
                "--encoding=UTF8",
            ])
            .arg("--pwfile")
            .arg(&password)
            .arg("-D")
            .arg(directory.path().join("data"))
            .current_dir("/")
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut postgres = Self { directory, running: None };
        postgres.run();
        Some(postgres)
    }

    /// Starts it, also again.
    pub fn run(&mut self) {
        let folder = self.directory.path();
        let log = File::create(folder.join("log")).unwrap();
        let child = server(&found("postgres").unwrap())
            .arg("-D")
            .arg(folder.join("data"))
            .arg("-k")
            .arg(folder)
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=20"])
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running = Some(child);
        until("PostgreSQL answers", || self.ask("SELECT 1").status.success().then_some(()));
    }

    /// Ends it at once, its clients with it.
    pub fn kill(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        rustix::process::kill_process(pid_of(child.id()), Signal::QUIT).unwrap();
        child.wait().unwrap();
    }

    /// The connection as libpq writes it, password included.
    pub fn connection(&self) -> String {
        format!(
            "host={} user=diarwatch dbname=postgres password='{}'",
            self.directory.path().display(),
            Self::PASSWORD
        )
    }

    fn psql(&self) -> Command {
        let mut command = Command::new(found("psql").unwrap());
        command.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d"]).arg(self.connection());
        command
    }

    pub fn ask(&self, sql: &str) -> Output {
        self.psql().args(["-c", sql]).output().unwrap()
    }

    /// What a statement says.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        let output = self.ask(sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A session that has run this and holds what it locked until it is dropped.
    pub fn session(&self, sql: &str) -> Session {
        let mut child = self.psql().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{sql}\n\\echo done").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "done");
        Session(child)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct Session(Child);

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A Redis of its own, which keeps nothing.
pub struct Redis {
    directory: tempfile::TempDir,
    running: Option<Child>,
}

impl Redis {
    pub const PASSWORD: &str = "hunter2";

    pub fn start() -> Option<Self> {
        if found("redis-server").is_none() {
            return skipped("redis-server");
        }
        let mut redis = Self { directory: directory(), running: None };
        redis.run();
        Some(redis)
    }

    /// Starts it, also again, empty.
    pub fn run(&mut self) {
        let child = server(&found("redis-server").unwrap())
            .args(["--port", "0", "--save", "", "--unixsocketperm", "777", "--requirepass", Self::PASSWORD])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.running = Some(child);
        until("Redis answers", || {
            UnixStream::connect(self.socket()).ok()?;
            self.tell("PING").starts_with("+PONG").then_some(())
        });
    }

    pub fn kill(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Its address, password included.
    pub fn url(&self) -> String {
        format!("unix://{}?pass={}", self.socket().display(), Self::PASSWORD)
    }

    /// Gives a command; gives the first line of the answer.
    pub fn tell(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        write!(stream, "AUTH {}\r\n{command}\r\n", Self::PASSWORD).unwrap();
        let mut lines = BufReader::new(stream).lines();
        lines.next().unwrap().unwrap();
        lines.next().unwrap().unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a server does with a connection that was made.
#[derive(Clone)]
pub enum Does {
    /// Reads the request and answers it as HTTP.
    Says(String),
    /// Sends these bytes at once and closes.
    Sends(Vec<u8>),
    /// Sends these bytes again and again.
    Floods(Vec<u8>),
    /// Keeps it and says nothing.
    Nothing,
}

impl Does {
    pub fn says(status: &str, body: &str) -> Self {
        Self::Says(format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ))
    }

    pub fn ok(body: &str) -> Self {
        Self::says("200 OK", body)
    }
}

/// A server on a port of its own, which can change its mind.
pub struct Server {
    does: Arc<Mutex<Does>>,
    accepted: Arc<AtomicUsize>,
    pub address: String,
}

impl Server {
    pub fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (does, accepted) = (Arc::new(Mutex::new(does)), Arc::new(AtomicUsize::new(0)));
        let (todo, count) = (Arc::clone(&does), Arc::clone(&accepted));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                let does = todo.lock().unwrap().clone();
                std::thread::spawn(move || serve(stream, does));
            }
        });
        Self { does, accepted, address }
    }

    pub fn now(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    /// Connections so far: looks, where each has one of its own.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    pub fn url(&self) -> String {
        format!("http://{}/queue", self.address)
    }

    pub fn port(&self) -> &str {
        self.address.rsplit_once(':').unwrap().1
    }
}

fn serve(mut stream: TcpStream, does: Does) {
    // Who is served may be gone.
    match does {
        Does::Says(answer) => {
            let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
            while request.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            drop(stream.write_all(answer.as_bytes()));
        }
        Does::Sends(bytes) => drop(stream.write_all(&bytes)),
        Does::Floods(bytes) => while stream.write_all(&bytes).is_ok() {},
        Does::Nothing => {
            stream.set_read_timeout(Some(Duration::from_secs(600))).unwrap();
            let mut bytes = [0; 1024];
            while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
        }
    }
}
