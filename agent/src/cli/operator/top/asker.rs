//! Questions to the agent, on a thread of their own.
//!
//! Takes questions; gives answers in their order. An agent that hangs holds this thread up, never the
//! picture nor the keys. At most [`QUESTIONS_MAX`] wait, in each direction.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use diarwatch_shared::exit::Exit;
use serde_json::Value;

use super::model::{Question, Refusal};
use crate::cli::ask::{Trouble, ask};

/// Questions that wait; the model asks no more while answers are under way.
const QUESTIONS_MAX: usize = 8;
/// For one answer; the agent takes no longer itself.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// An answer, with its question.
pub(super) type Answer = (Question, Result<Value, Refusal>);

/// The thread that asks. It ends when this is dropped, or with the process when the agent holds it up.
pub(super) struct Asker {
    questions: SyncSender<Question>,
    answers: Receiver<Answer>,
}

impl Asker {
    /// Starts the thread.
    pub(super) fn start(socket: PathBuf, timeout: Duration) -> std::io::Result<Self> {
        let (questions, asked) = sync_channel::<Question>(QUESTIONS_MAX);
        let (told, answers) = sync_channel(QUESTIONS_MAX);
        let timeout = timeout.min(ANSWER_TIMEOUT);
        std::thread::Builder::new().name(String::from("asker")).spawn(move || {
            for question in asked {
                let answer = ask(&socket, &question.document(), timeout).map_err(refusal);
                if told.send((question, answer)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { questions, answers })
    }

    /// Asks; whether the question was taken.
    pub(super) fn ask(&self, question: Question) -> bool {
        self.questions.try_send(question).is_ok()
    }

    /// The next answer that is there.
    ///
    /// # Errors
    /// When the thread is gone, which is a fault of this program.
    pub(super) fn answer(&self) -> Result<Option<Answer>, String> {
        match self.answers.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(String::from("the thread that asks the agent ended")),
        }
    }
}

fn refusal(trouble: Trouble) -> Refusal {
    // Whatever else it says, it did answer.
    let unreachable = trouble.exit != Exit::BadData;
    Refusal { problem: trouble.problem, unreachable }
}
