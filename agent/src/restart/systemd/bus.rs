//! The way to systemd: the only file that knows D-Bus. Takes what to ask; gives answers and what
//! systemd tells by itself, in the order in which systemd sent them. Every call has a time limit.
//!
//! One stream carries answers and signals, and a call reads it until its answer comes: nothing can fill
//! up behind a call, and what was said before an answer is heard before it. At most [`HEARD_MAX`] things
//! wait; when they are more, the oldest go and the state is read anew, so nothing of it is lost.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use serde::Serialize;
use zbus::message::{Message, Type};
use zbus::{Connection, DynamicType, MessageStream, OwnedObjectPath, OwnedVariant, Variant};

use super::unit::{Side, Value};

/// How long a call may take, polkit's part in it included.
const CALL_MAX: Duration = Duration::from_secs(5);
/// How long it may take to reach the bus.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Things heard that wait for their reader.
const HEARD_MAX: usize = 256;
/// Messages that wait between the socket and the reader; when they are more, the bus keeps them.
const MESSAGES_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

const BUS: Place =
    Place { name: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };
const MANAGER: Place = Place {
    name: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const JOB: &str = "org.freedesktop.systemd1.Job";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A connection that follows one unit.
#[derive(Debug)]
pub(super) struct Bus {
    connection: Connection,
    stream: MessageStream,
    /// Who is systemd on this bus; anybody may send a signal that looks like systemd's.
    systemd: String,
    /// The unit's object.
    unit: String,
    heard: VecDeque<Heard>,
}

/// What systemd tells by itself.
#[derive(Debug)]
pub(super) enum Heard {
    /// Properties of the unit changed.
    Changed(Side, Vec<(String, Value)>),
    /// A job of the unit came to its end.
    JobDone { job: u32, result: String },
    /// The state has to be read anew: systemd read its files again, or something was not heard.
    ReadAnew,
}

/// Why a call gave nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The bus, or systemd on it, is gone; this connection is of no more use.
    Lost(String),
    /// systemd, polkit or the bus said no.
    Refused { name: String, text: String },
}

/// A service that is made over the bus.
#[derive(Debug)]
pub(super) struct Transient<'a> {
    pub description: String,
    pub command: &'a [String],
    pub user: Option<&'a str>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    pub directory: Option<String>,
    /// What its lines in the journal are called.
    pub identifier: &'a str,
    /// The wait of systemd's own restart: the floor for when the agent is dead.
    pub restart_wait: Duration,
}

/// Which processes a signal is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whom {
    Main,
    All,
}

struct Place {
    name: &'static str,
    path: &'static str,
    interface: &'static str,
}

impl Bus {
    /// Reaches systemd and listens to what becomes of this unit; changes nothing.
    pub(super) async fn follow(unit: &str) -> Result<Self, Trouble> {
        let builder = zbus::connection::Builder::system().max_queued(MESSAGES_MAX);
        let connection = tokio::time::timeout(CONNECT_MAX, builder.build()).await;
        let connection = connection.map_err(|_| lost("the system bus does not answer"))?.map_err(broken)?;
        let stream = MessageStream::from(&connection);
        let (systemd, object, heard) = (String::new(), String::new(), VecDeque::new());
        let mut bus = Self { connection, stream, systemd, unit: object, heard };
        bus.listen("type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.freedesktop.systemd1'").await?;
        bus.systemd = text_of(&bus.call(&BUS, "GetNameOwner", &MANAGER.name).await?)?;
        bus.listen(&format!("type='signal',sender='{}',member='JobRemoved',arg2='{unit}'", MANAGER.name))
            .await?;
        bus.listen(&format!("type='signal',sender='{}',member='Reloading'", MANAGER.name)).await?;
        // Some other program may have asked for the signals on this connection's behalf; they come then.
        bus.call(&MANAGER, "Subscribe", &()).await?;
        let path: OwnedObjectPath = body(&bus.call(&MANAGER, "LoadUnit", &unit).await?)?;
        bus.unit = path.as_str().to_owned();
        let (sender, object) = (MANAGER.name, &bus.unit);
        let changes = format!("type='signal',sender='{sender}',path='{object}',member='PropertiesChanged'");
        bus.listen(&changes).await?;
        Ok(bus)
    }

    /// The next thing that systemd tells; for ever while it tells none. Dropping the future loses nothing.
    pub(super) async fn heard(&mut self) -> Result<Heard, Trouble> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Ok(heard);
            }
            let message = self.message().await?;
            self.hear(&message)?;
        }
    }

    /// What was heard while a call waited for its answer; it is older than the answer.
    pub(super) fn heard_before(&mut self) -> Option<Heard> {
        self.heard.pop_front()
    }

    /// All properties of one side of the unit.
    pub(super) async fn read(&mut self, side: Side) -> Result<Vec<(String, Value)>, Trouble> {
        let interface = match side {
            Side::Unit => UNIT,
            Side::Service => SERVICE,
        };
        let path = self.unit.clone();
        let answer = self.call_at(MANAGER.name, &path, PROPERTIES, "GetAll", &interface).await?;
        Ok(values(body(&answer)?))
    }

    /// Asks for a job of the unit, such as `StartUnit`; gives its number.
    pub(super) async fn job(&mut self, verb: &str, unit: &str) -> Result<u32, Trouble> {
        let answer = self.call(&MANAGER, verb, &(unit, "replace")).await?;
        job_number(body::<OwnedObjectPath>(&answer)?.as_str())
    }

    /// Makes a service and starts it; gives the job's number.
    pub(super) async fn start_transient(
        &mut self,
        unit: &str,
        service: &Transient<'_>,
    ) -> Result<u32, Trouble> {
        let auxiliary: Vec<(String, Vec<(String, Variant<'_>)>)> = Vec::new();
        let body_ = (unit, "replace", service.properties(), auxiliary);
        let answer = self.call(&MANAGER, "StartTransientUnit", &body_).await?;
        job_number(body::<OwnedObjectPath>(&answer)?.as_str())
    }

    /// Sends a signal to processes of the unit; none there is no error.
    pub(super) async fn kill(&mut self, unit: &str, whom: Whom, signal: i32) -> Result<(), Trouble> {
        let whom = match whom {
            Whom::Main => "main",
            Whom::All => "all",
        };
        match self.call(&MANAGER, "KillUnit", &(unit, whom, signal)).await {
            Err(Trouble::Refused { name, .. }) if is_about_nothing(&name) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Forgets failures and starts that systemd counted; a unit that is not there has none.
    pub(super) async fn reset_failed(&mut self, unit: &str) -> Result<(), Trouble> {
        match self.call(&MANAGER, "ResetFailedUnit", &unit).await {
            Err(Trouble::Refused { name, .. }) if is_about_nothing(&name) => Ok(()),
            other => other.map(drop),
        }
    }

    /// What a job does (`stop`, `start`, `restart`); none when it is over.
    pub(super) async fn job_kind(&mut self, job: u32) -> Result<Option<String>, Trouble> {
        let path = format!("/org/freedesktop/systemd1/job/{job}");
        match self.call_at(MANAGER.name, &path, PROPERTIES, "Get", &(JOB, "JobType")).await {
            Ok(answer) => match value(&*body::<OwnedVariant>(&answer)?) {
                Some(Value::Text(kind)) => Ok(Some(kind)),
                _ => Ok(None),
            },
            Err(Trouble::Refused { .. }) => Ok(None),
            Err(lost) => Err(lost),
        }
    }

    async fn listen(&mut self, rule: &str) -> Result<(), Trouble> {
        self.call(&BUS, "AddMatch", &rule).await.map(drop)
    }

    async fn call<B>(&mut self, place: &Place, method: &str, body: &B) -> Result<Message, Trouble>
    where
        B: Serialize + DynamicType + Sync,
    {
        self.call_at(place.name, place.path, place.interface, method, body).await
    }

    async fn call_at<B>(
        &mut self,
        name: &str,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<Message, Trouble>
    where
        B: Serialize + DynamicType + Sync,
    {
        let call = Message::method_call(path, method).destination(name).interface(interface);
        let call = call.build(body).map_err(broken)?;
        let answer = tokio::time::timeout(CALL_MAX, self.answer_to(&call)).await;
        answer.map_err(|_| lost(format!("{method} had no answer within {} s", CALL_MAX.as_secs())))?
    }

    async fn answer_to(&mut self, call: &Message) -> Result<Message, Trouble> {
        let serial = call.primary_header().serial_num();
        self.connection.send(call).await.map_err(broken)?;
        loop {
            let message = self.message().await?;
            if message.header().reply_serial() != Some(serial) {
                self.hear(&message)?;
                continue;
            }
            return match message.message_type() {
                Type::Error => {
                    let name = message.header().error_name().map(ToString::to_string).unwrap_or_default();
                    let text = text_of(&message).unwrap_or_default();
                    Err(Trouble::Refused { name, text })
                }
                _ => Ok(message),
            };
        }
    }

    async fn message(&mut self) -> Result<Message, Trouble> {
        let message = poll_fn(|context| Pin::new(&mut self.stream).poll_next(context)).await;
        message.ok_or_else(|| lost("the system bus closed the connection"))?.map_err(broken)
    }

    fn hear(&mut self, message: &Message) -> Result<(), Trouble> {
        let header = message.header();
        let sender = header.sender().map_or("", zbus::names::UniqueName::as_str);
        if message.message_type() != Type::Signal {
            return Ok(());
        }
        let heard = match header.member().map_or("", zbus::names::MemberName::as_str) {
            "NameOwnerChanged" if sender == BUS.name => {
                return Err(lost("systemd left the bus, or was executed anew"));
            }
            _ if sender != self.systemd => return Ok(()),
            "PropertiesChanged" if header.path().is_some_and(|path| path.as_str() == self.unit) => {
                changed(message)
            }
            "JobRemoved" => match body::<(u32, OwnedObjectPath, String, String)>(message) {
                Ok((job, _, _, result)) => Some(Heard::JobDone { job, result }),
                Err(_) => Some(Heard::ReadAnew),
            },
            "Reloading" => body::<bool>(message).is_ok_and(|begins| !begins).then_some(Heard::ReadAnew),
            _ => None,
        };
        self.heard.extend(heard);
        if self.heard.len() > HEARD_MAX {
            self.heard.drain(..=HEARD_MAX / 2);
            self.heard.push_back(Heard::ReadAnew);
        }
        Ok(())
    }
}

impl Trouble {
    /// Whether whoever asked may not do this.
    pub(super) fn is_denied(&self) -> bool {
        let denied = ["AccessDenied", "InteractiveAuthorizationRequired", "AuthFailed"];
        matches!(self, Self::Refused { name, .. }
            if name.rsplit('.').next().is_some_and(|last| denied.contains(&last)))
    }

    /// Whether a unit of this name is there already.
    pub(super) fn is_there_already(&self) -> bool {
        matches!(self, Self::Refused { name, .. } if name.ends_with(".UnitExists"))
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(why) => f.write_str(why),
            Self::Refused { name, text } if text.is_empty() => f.write_str(name),
            Self::Refused { text, .. } => f.write_str(text),
        }
    }
}

impl Transient<'_> {
    /// `KillMode=mixed`: SIGTERM is for the main process, which ends its jobs with its helpers alive; what
    /// it leaves is killed at once and never keeps the next start waiting.
    fn properties(&self) -> Vec<(&'static str, Variant<'static>)> {
        let program = self.command.first().cloned().unwrap_or_default();
        // The arguments as they stand: `$` in them is no variable.
        let flags = vec![String::from("no-env-expand")];
        let micros = u64::try_from(self.restart_wait.as_micros()).unwrap_or(u64::MAX);
        let mut properties = vec![
            ("Description", Variant::new(self.description.clone())),
            ("Type", Variant::new("exec")),
            ("ExecStartEx", Variant::new(vec![(program, self.command.to_vec(), flags)])),
            ("SyslogIdentifier", Variant::new(self.identifier.to_owned())),
            ("KillMode", Variant::new("mixed")),
            ("SendSIGKILL", Variant::new(true)),
            ("Restart", Variant::new("on-failure")),
            ("RestartUSec", Variant::new(micros)),
            ("StartLimitIntervalUSec", Variant::new(0_u64)),
            ("TimeoutStopUSec", Variant::new(u64::MAX)),
            ("CollectMode", Variant::new("inactive-or-failed")),
        ];
        properties.extend(self.user.map(|user| ("User", Variant::new(user.to_owned()))));
        if !self.environment.is_empty() {
            properties.push(("Environment", Variant::new(self.environment.clone())));
        }
        properties.extend(self.directory.clone().map(|path| ("WorkingDirectory", Variant::new(path))));
        properties
    }
}

fn lost(why: impl Into<String>) -> Trouble {
    Trouble::Lost(why.into())
}

fn broken(error: impl Into<zbus::Error>) -> Trouble {
    lost(error.into().to_string())
}

/// Whether an error says no more than that there is nothing to act on.
fn is_about_nothing(name: &str) -> bool {
    let nothing = ["NoSuchUnit", "NoSuchProcess", "UnknownObject"];
    name.rsplit('.').next().is_some_and(|last| nothing.contains(&last))
}

fn body<T>(message: &Message) -> Result<T, Trouble>
where
    T: serde::de::DeserializeOwned + zbus::Type,
{
    let unread = |error| lost(format!("an answer of systemd could not be read: {error}"));
    message.body().deserialize::<T>().map_err(unread)
}

fn text_of(message: &Message) -> Result<String, Trouble> {
    body(message)
}

fn changed(message: &Message) -> Option<Heard> {
    let read = body::<(String, HashMap<String, OwnedVariant>, Vec<String>)>(message);
    let Ok((interface, properties, _)) = read else { return Some(Heard::ReadAnew) };
    let side = match interface.as_str() {
        UNIT => Side::Unit,
        SERVICE => Side::Service,
        _ => return None,
    };
    Some(Heard::Changed(side, values(properties)))
}

fn values(properties: HashMap<String, OwnedVariant>) -> Vec<(String, Value)> {
    properties.into_iter().filter_map(|(name, variant)| Some((name, value(&variant)?))).collect()
}

fn value(variant: &Variant<'_>) -> Option<Value> {
    match variant {
        Variant::Str(text) => Some(Value::Text(text.as_str().to_owned())),
        Variant::Bool(flag) => Some(Value::Flag(*flag)),
        Variant::I32(number) => Some(Value::Number(i64::from(*number))),
        Variant::U32(number) => Some(Value::Number(i64::from(*number))),
        // systemd's `infinity` is the largest number; -1 here.
        Variant::U64(number) => Some(Value::Number(i64::try_from(*number).unwrap_or(-1))),
        Variant::Array(bytes) => {
            let bytes = bytes.iter().map(|byte| match byte {
                Variant::U8(byte) => Some(*byte),
                _ => None,
            });
            bytes.collect::<Option<Vec<u8>>>().map(Value::Bytes)
        }
        Variant::Structure(pair) => match pair.fields() {
            [Variant::U32(job), Variant::ObjectPath(_)] => Some(Value::Job(*job)),
            _ => None,
        },
        _ => None,
    }
}

fn job_number(path: &str) -> Result<u32, Trouble> {
    let number = path.rsplit('/').next().and_then(|number| number.parse().ok());
    number.ok_or_else(|| lost(format!("systemd named a job `{path}`")))
}
