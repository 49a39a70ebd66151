//! Errors of GPUs, told. Takes what the driver reports and what the kernel's log says; gives an event for
//! each XID and for each change of what the driver wants done, their series, and the newest on the board.
//!
//! Ticks are dropped when the frame stage is slow; events wait, and whoever saw more errors waits with them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use diarwatch_shared::clock::{self, UnixMicros};
use diarwatch_shared::event::{Event, RecoveryAction, What, XidAction};
use diarwatch_shared::reading::{Missing, Reading};
use diarwatch_shared::schema::SeriesKey;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use super::kernel_line::{Bus, Line};
use super::series::key;
use super::sightings::{Became, DRIVER_WAIT, LOG_WAIT, Sighting, Sightings, Source, Subject};
use super::xid::Table;
use crate::board::Board;
use crate::sample::{Sink, Tick};

/// XIDs that the board keeps.
pub const XIDS_MAX: usize = 32;
/// How often the series are told, when nothing happens.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// One XID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Xid {
    /// When it was seen, by [`clock::uptime`].
    #[serde(skip)]
    pub seen: Duration,
    /// When it happened.
    pub at_us: UnixMicros,
    /// The GPU, by index; none when it cannot be told which.
    pub gpu: Option<u32>,
    /// Its identity; empty when it is not known.
    pub uuid: String,
    /// Its code.
    pub code: u32,
    /// The process that it hit, where the kernel's log says so.
    pub pid: Option<u32>,
    /// What it calls for.
    pub action: XidAction,
    /// What is known of it, for a person.
    pub text: String,
}

/// What one of the sources saw.
#[derive(Debug)]
pub(super) enum Seen {
    /// The driver reported an XID, of the GPU at this place on the board.
    Xid { gpu: Option<u32>, code: u32 },
    /// The driver said what it wants done about the GPU at this place.
    Recovery { gpu: u32, action: Result<RecoveryAction, Missing> },
    /// The kernel's log has an XID.
    Line { at: UnixMicros, line: Line },
    /// Whether the kernel's log can be read.
    KernelLog { problem: Option<String> },
    /// Whether the driver reports errors.
    Reports { problem: Option<String> },
    /// The driver was unloaded: what it wanted is void.
    Unloaded,
}

/// What is known of one GPU's errors.
#[derive(Debug, Default)]
struct Known {
    /// Errors since the agent started.
    count: u64,
    /// What the driver wanted when it was asked last, and when.
    recovery: Option<(Duration, Result<RecoveryAction, Missing>)>,
    /// The last of it that was told.
    told: Option<RecoveryAction>,
    /// What its XIDs call for, where the driver does not say itself. A GPU is reset only while no agent
    /// has it open, so nothing but an unloaded driver ends this.
    wanted: Option<XidAction>,
}

/// All errors.
pub(super) struct Errors {
    table: Table,
    sink: Sink,
    board: Board,
    sightings: Sightings,
    /// Whether the kernel's log is read.
    log_is_read: bool,
    /// By identity; of GPUs on the board alone.
    known: BTreeMap<String, Known>,
    gpus: Vec<(u32, String)>,
    keys: Arc<[SeriesKey]>,
    tell_due: Duration,
}

impl Errors {
    pub(super) fn new(table: Table, sink: Sink, board: Board) -> Self {
        info!(version = table.version(), "table of XIDs");
        Self {
            table,
            sink,
            board,
            sightings: Sightings::default(),
            log_is_read: false,
            known: BTreeMap::new(),
            gpus: Vec::new(),
            keys: Arc::default(),
            tell_due: Duration::ZERO,
        }
    }

    /// Tells errors until nobody sees any more.
    pub(super) async fn run(mut self, mut seen: mpsc::Receiver<Seen>) {
        loop {
            let now = clock::uptime();
            let wake = self.sightings.due().map_or(self.tell_due, |due| due.min(self.tell_due));
            match timeout(wake.saturating_sub(now), seen.recv()).await {
                Ok(Some(seen)) => self.take(seen, clock::uptime()).await,
                Ok(None) => return,
                Err(_) => {}
            }
            self.tell(clock::uptime()).await;
            self.tick(clock::uptime());
        }
    }

    async fn take(&mut self, seen: Seen, now: Duration) {
        match seen {
            Seen::Xid { gpu, code } => {
                let subject = self.subject(|place, _| Some(place) == gpu).unwrap_or_default();
                self.see(now, clock::now(), subject, Line::bare(code), Source::Driver);
            }
            Seen::Line { at, line } => {
                let known = self.subject(|_, bus| bus == Some(line.bus));
                let subject = known.unwrap_or(Subject { bus: Some(line.bus), ..Subject::default() });
                self.see(now, at, subject, line, Source::KernelLog);
            }
            Seen::Recovery { gpu, action } => self.recovery(gpu, action, now).await,
            Seen::KernelLog { problem } => {
                match &problem {
                    None => info!("the kernel's log is read for errors of GPUs"),
                    Some(problem) => info!(problem, "the kernel's log cannot be read for errors of GPUs"),
                }
                self.log_is_read = problem.is_none();
                self.board.update(|board| board.kernel_log_problem = problem);
            }
            Seen::Reports { problem: Some(problem) } => {
                warn!(problem, "the driver reports no errors of a GPU");
            }
            Seen::Reports { problem: None } => {}
            Seen::Unloaded => {
                for known in self.known.values_mut() {
                    (known.recovery, known.told, known.wanted) = (None, None, None);
                }
            }
        }
    }

    fn see(&mut self, seen: Duration, at: UnixMicros, subject: Subject, line: Line, source: Source) {
        let Line { code, pid, recovery, text, .. } = line;
        let waits_for_log = self.log_is_read && source == Source::Driver;
        let until = seen + if waits_for_log { LOG_WAIT } else { DRIVER_WAIT };
        let sighting = Sighting { seen, until, at, subject, code, pid, text, recovery, source, twice: false };
        if let Became::KnowsPid(late) = self.sightings.see(sighting) {
            self.board.update(|board| {
                let same = |xid: &&mut Xid| xid.seen == late.seen && xid.code == late.code;
                board.xids.iter_mut().filter(same).for_each(|xid| xid.pid = late.pid);
            });
        }
    }

    /// The GPU on the board that fits.
    fn subject(&self, fits: impl Fn(u32, Option<Bus>) -> bool) -> Option<Subject> {
        self.board.read(|board| {
            let mut gpus = (0_u32..).zip(&board.gpus);
            let (_, gpu) = gpus.find(|(place, gpu)| fits(*place, Bus::read(&gpu.facts.bus)))?;
            let bus = Bus::read(&gpu.facts.bus);
            Some(Subject { gpu: Some(gpu.facts.index), uuid: gpu.facts.uuid.clone(), bus })
        })
    }

    async fn recovery(&mut self, gpu: u32, action: Result<RecoveryAction, Missing>, now: Duration) {
        let Some(Subject { gpu: Some(gpu), uuid, .. }) = self.subject(|place, _| place == gpu) else {
            return;
        };
        let known = self.known.entry(uuid.clone()).or_default();
        known.recovery = Some((now, action));
        let Ok(action) = action else { return };
        if known.told.replace(action).unwrap_or(RecoveryAction::None) == action {
            return;
        }
        self.tell_due = now;
        warn!(gpu, uuid, action = action.word(), "the driver wants something else done about a GPU");
        self.event(clock::now(), What::GpuRecoveryAction { gpu, uuid, action }).await;
    }

    /// Tells the XIDs that have waited long enough.
    async fn tell(&mut self, now: Duration) {
        let known = &self.known;
        let heard = |half: &Sighting| {
            let recovery = known.get(&half.subject.uuid).and_then(|known| known.recovery);
            recovery.is_some_and(|(at, _)| at > half.seen)
        };
        for (half, companions) in self.sightings.take(now, heard) {
            let known = self.known.get(&half.subject.uuid);
            let action = self.table.action(half.code, &companions, wanted_now(&half, known));
            let name = self.table.name(half.code);
            let text = if half.text.is_empty() { name.to_owned() } else { half.text };
            let Subject { gpu, uuid, .. } = half.subject;
            let xid = Xid {
                seen: half.seen,
                at_us: half.at,
                gpu,
                uuid,
                code: half.code,
                pid: half.pid,
                action,
                text,
            };
            self.count(&xid);
            self.tell_due = now;
            self.one(xid).await;
        }
    }

    fn count(&mut self, xid: &Xid) {
        if xid.uuid.is_empty() {
            return;
        }
        let known = self.known.entry(xid.uuid.clone()).or_default();
        known.count += 1;
        if xid.action >= XidAction::ResetGpu {
            known.wanted = known.wanted.max(Some(xid.action));
        }
    }

    async fn one(&self, xid: Xid) {
        let Xid { gpu, uuid, code, pid, action, text, .. } = xid.clone();
        warn!(gpu, uuid, code, pid, action = action.word(), text, "XID");
        self.board.update(|board| push(&mut board.xids, xid.clone()));
        self.event(xid.at_us, What::GpuXid { gpu, uuid, code, pid, action, text }).await;
    }

    async fn event(&self, at: UnixMicros, what: What) {
        self.sink.event(Event::new(at, what)).await;
    }

    /// Tells the series, when that is due.
    #[expect(clippy::cast_precision_loss, reason = "errors are far below 2^53")]
    fn tick(&mut self, now: Duration) {
        let of = |gpu: &crate::board::Gpu| (gpu.facts.index, gpu.facts.uuid.clone());
        let gpus: Vec<(u32, String)> = self.board.read(|board| board.gpus.iter().map(of).collect());
        if gpus != self.gpus {
            self.keys = gpus.iter().flat_map(keys).collect();
            // Those that are gone for good are forgotten; while no driver answers, none is.
            if !gpus.is_empty() {
                self.known.retain(|uuid, _| gpus.iter().any(|(_, there)| there == uuid));
            }
            self.gpus = gpus;
            self.tell_due = now;
        }
        if now < self.tell_due {
            return;
        }
        self.tell_due = now + TELL_INTERVAL;
        if self.gpus.is_empty() {
            return;
        }
        let none = Known::default();
        let readings = self.gpus.iter().flat_map(|(_, uuid)| {
            let known = self.known.get(uuid).unwrap_or(&none);
            [Ok(known.count as f64), known.action_wanted()]
        });
        let (keys, readings) = (Arc::clone(&self.keys), readings.collect());
        self.sink.tick(Tick { group: "gpu_errors".into(), at: clock::now(), keys, readings });
    }
}

impl Known {
    /// What the GPU needs to be well, as a number.
    fn action_wanted(&self) -> Reading {
        match self.recovery.map_or(Err(Missing::NotYet), |(_, action)| action) {
            Ok(RecoveryAction::None) => Ok(0.0),
            Ok(RecoveryAction::GpuReset | RecoveryAction::DrainAndReset) => Ok(1.0),
            Ok(RecoveryAction::NodeReboot) => Ok(2.0),
            Ok(RecoveryAction::DrainP2p | RecoveryAction::Other) => Ok(3.0),
            Err(missing) => match self.wanted {
                Some(XidAction::ResetGpu) => Ok(1.0),
                Some(XidAction::Reboot) => Ok(2.0),
                Some(_) => Ok(3.0),
                None => Err(missing),
            },
        }
    }
}

/// What the driver wants, as far as it goes for this XID: that it wanted nothing before it came says nothing.
fn wanted_now(half: &Sighting, known: Option<&Known>) -> Option<RecoveryAction> {
    let asked = known.and_then(|known| known.recovery);
    let heard = asked.and_then(|(at, action)| {
        action.ok().filter(|action| at > half.seen || *action != RecoveryAction::None)
    });
    heard.or(half.recovery)
}

fn keys((index, uuid): &(u32, String)) -> [SeriesKey; 2] {
    let index = index.to_string();
    ["gpu_xid_errors_total", "gpu_action_wanted"]
        .map(|metric| key(metric, &[("gpu", &index), ("uuid", uuid)]))
}

fn push(xids: &mut VecDeque<Xid>, xid: Xid) {
    xids.push_back(xid);
    if xids.len() > XIDS_MAX {
        xids.pop_front();
    }
}
