//! The terminal: taken, painted on, given back whatever happens. The one file that knows crossterm.
//!
//! Takes pictures; gives keys and sizes. It is given back when this is dropped, before a panic is told,
//! on SIGTERM, SIGINT and SIGHUP, and while the process is suspended.

use std::io::{self, Stdout, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::style::force_color_output;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use rustix::process::{Signal, kill_current_process_group};
use tokio::signal::unix::{SignalKind, signal};

use super::layout::Pane;
use super::model::Press;
use super::paint::Paint;

/// For the loop to end after a signal; the process is ended when it does not.
const END_WAIT: Duration = Duration::from_millis(500);
/// Keys that are taken before the next picture.
const KEYS_MAX: usize = 64;

/// What a person did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Press(Press),
    /// Ctrl-Z.
    Suspend,
}

/// The terminal while it is ours.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    colour: bool,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take(colour: bool) -> io::Result<Self> {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            told(info);
        }));
        force_color_output(colour);
        enter()?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout())).inspect_err(|_| give_back())?;
        Ok(Self { terminal, colour })
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> io::Result<(u16, u16)> {
        let size = self.terminal.size()?;
        Ok((size.width, size.height))
    }

    /// Shows a picture.
    pub(super) fn show(&mut self, paint: impl FnOnce(&mut Paint)) -> io::Result<()> {
        let colour = self.colour;
        self.terminal.draw(|frame| paint(&mut Paint::new(frame.buffer_mut(), colour)))?;
        Ok(())
    }

    /// Waits for keys; gives those that came, none when the time is over.
    pub(super) fn keys(&self, wait: Duration) -> io::Result<Vec<Did>> {
        let mut did = Vec::new();
        let mut wait = wait;
        while did.len() < KEYS_MAX && event::poll(wait)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => did.push(meaning(key)),
                // A new size: paint at once.
                _ => did.push(Did::Press(Press::Other)),
            }
            wait = Duration::ZERO;
        }
        Ok(did)
    }

    /// Gives the terminal to the shell until it brings this process back.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // To the whole group, as the terminal does it: a `sudo` before this has to stop too. Nothing
        // happens where nobody could bring it back.
        kill_current_process_group(Signal::TSTP)?;
        self.again()
    }

    /// Takes the terminal again, and paints all of it.
    pub(super) fn again(&mut self) -> io::Result<()> {
        // A shell that had it meanwhile left modes of its own.
        drop(disable_raw_mode());
        enter()?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whether the terminal is ours: it is given back once. A second time would put the cursor where it was
/// before, over the words of a panic.
static OURS: AtomicBool = AtomicBool::new(false);

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    OURS.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen).inspect_err(|_| give_back())
}

/// A terminal that is gone cannot be given back; nothing else can fail here.
fn give_back() {
    if OURS.swap(false, Ordering::SeqCst) {
        drop(execute!(stdout(), LeaveAlternateScreen, Show));
        drop(disable_raw_mode());
    }
}

fn meaning(key: KeyEvent) -> Did {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Did::Press(Press::Quit),
            KeyCode::Char('z') => Did::Suspend,
            _ => Did::Press(Press::Other),
        };
    }
    Did::Press(match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Press::Quit,
        KeyCode::Char(' ' | 'p') => Press::Pause,
        KeyCode::Char('?' | 'h') => Press::Help,
        KeyCode::Char('t') => Press::Span,
        KeyCode::Char('g') => Press::Focus(Pane::Gpus),
        KeyCode::Char('w') => Press::Focus(Pane::Workers),
        KeyCode::Char('u') => Press::Focus(Pane::Queues),
        KeyCode::Char('e') => Press::Focus(Pane::Events),
        KeyCode::Enter => Press::Zoom,
        KeyCode::Tab | KeyCode::Right => Press::NextPane,
        KeyCode::BackTab | KeyCode::Left => Press::PreviousPane,
        KeyCode::Up | KeyCode::Char('k') => Press::Up,
        KeyCode::Down | KeyCode::Char('j') => Press::Down,
        KeyCode::PageUp => Press::PageUp,
        KeyCode::PageDown => Press::PageDown,
        KeyCode::Home => Press::First,
        KeyCode::End => Press::Last,
        _ => Press::Other,
    })
}

/// Signals that came, watched by a thread: the loop looks at them ten times a second.
pub(super) struct Signals {
    end: Arc<AtomicBool>,
    continued: Arc<AtomicBool>,
}

impl Signals {
    /// Watches from now on.
    pub(super) fn watch() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut again = signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
        drop(entered);
        let (end, continued) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let told = Self { end: Arc::clone(&end), continued: Arc::clone(&continued) };
        std::thread::Builder::new().name(String::from("signals")).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = terminate.recv() => break,
                        _ = interrupt.recv() => break,
                        _ = hangup.recv() => break,
                        _ = again.recv() => continued.store(true, Ordering::Relaxed),
                    }
                }
            });
            end.store(true, Ordering::Relaxed);
            std::thread::sleep(END_WAIT);
            // crossterm 0.29 reads a terminal that is gone over and over and never comes back from it; a
            // lost SSH connection left a process behind that used a whole core.
            drop(disable_raw_mode());
            std::process::exit(0);
        })?;
        Ok(told)
    }

    /// Whether this is to end.
    pub(super) fn end(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    /// Whether this went on after a stop, since the last time that was asked.
    pub(super) fn continued(&self) -> bool {
        self.continued.swap(false, Ordering::Relaxed)
    }
}
