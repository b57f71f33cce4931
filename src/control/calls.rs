//! What the admin side asks for, over a channel: [`Handle`] is the process as the admin side sees it.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::Control;
use crate::admin::{Command, CommandError, Status};
use crate::clock::Clock;
use crate::config::Config;
use crate::coordinator::doors as records;
use crate::coordinator::fencing::{self, RebaseError};
use crate::coordinator::keys::DoorName;
use crate::coordinator::store::{Store, StoreError};
use crate::event::Event as Said;
use crate::fence::handoff::Event;
use crate::fence::{Epoch, Resource};
use crate::mailbox::{GateId, Renewal, ToWorker};

/// Something that somebody asks of control.
#[derive(Debug)]
pub enum Call {
    /// How it stands.
    Status(oneshot::Sender<Arc<Status>>),
    /// Have every worker write its meters out.
    Flush(oneshot::Sender<()>),
    /// Give a leadership up.
    StepDown(Resource, bool, oneshot::Sender<Result<(), String>>),
    /// Open a gate, accepting that writes may be reordered.
    OpenGate(Resource, Option<Arc<str>>, oneshot::Sender<Result<serde_json::Value, CommandError>>),
    /// An operator declared a door dead: for the audit log.
    Forgotten(DoorName),
    /// An operator believes a floor: for the audit log.
    Rebased(Resource, Epoch),
    /// What changed of the configuration: for every worker.
    Renew(Arc<Config>, Arc<[Renewal]>),
    /// Stop in order.
    Stop,
}

/// Somebody who wants the files to be read again.
#[derive(Debug)]
pub enum Wish {
    /// By a signal.
    Signal,
    /// By a command, which waits for what comes of it.
    Command(oneshot::Sender<Result<serde_json::Value, CommandError>>),
}

/// The process, for the admin side. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    calls: mpsc::UnboundedSender<Call>,
    store: Arc<dyn Store>,
    wall: Arc<dyn Clock>,
    log: Arc<dyn Fn(tracing::Level) + Send + Sync>,
    reload: Option<std::sync::mpsc::Sender<Wish>>,
}

impl Handle {
    /// A handle whose calls go to the receiver that [`super::run`] is given.
    pub fn new(
        store: Arc<dyn Store>,
        wall: Arc<dyn Clock>,
        log: Arc<dyn Fn(tracing::Level) + Send + Sync>,
    ) -> (Handle, mpsc::UnboundedReceiver<Call>) {
        let (calls, receiver) = mpsc::unbounded_channel();
        (Handle { calls, store, wall, log, reload: None }, receiver)
    }

    /// The same, with somebody who reads the files again.
    #[must_use]
    pub fn with_reloader(mut self, reload: std::sync::mpsc::Sender<Wish>) -> Handle {
        self.reload = Some(reload);
        self
    }

    /// Has every listener be as it is from now on.
    pub fn renew(&self, config: Arc<Config>, renewals: Arc<[Renewal]>) {
        // It may have stopped.
        let _ = self.calls.send(Call::Renew(config, renewals));
    }

    /// Logs this level from now on.
    pub fn set_log_level(&self, level: tracing::Level) {
        (self.log)(level);
    }

    async fn reload(&self) -> Result<serde_json::Value, CommandError> {
        let nobody = || CommandError::Unavailable("this process was not started from files".to_owned());
        let (reply, answer) = oneshot::channel();
        self.reload.as_ref().ok_or_else(nobody)?.send(Wish::Command(reply)).map_err(|_| nobody())?;
        answer.await.map_err(|_| nobody())?
    }

    /// Has the process stop in order.
    pub fn stop(&self) {
        // It has stopped already.
        let _ = self.calls.send(Call::Stop);
    }

    async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        let stopped = || CommandError::Unavailable("the process is stopping".to_owned());
        self.calls.send(call(reply)).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }

    async fn forget(&self, target: &str, id: &str) -> Result<serde_json::Value, CommandError> {
        let name = DoorName { target: target.to_owned(), id: id.to_owned() };
        match records::mark_left(self.store.as_ref(), &name).await {
            Ok(true) => {
                let _ = self.calls.send(Call::Forgotten(name));
                Ok(json!({ "target": target, "id": id, "left": true }))
            }
            Ok(false) => Err(CommandError::NotFound(format!("no door {id} is recorded before {target}"))),
            Err(error @ StoreError::Denied(_)) => Err(CommandError::Conflict(error.to_string())),
            Err(error) => Err(CommandError::Unavailable(error.to_string())),
        }
    }

    async fn rebase(&self, resource: Resource, to: Epoch) -> Result<serde_json::Value, CommandError> {
        match fencing::rebase(self.store.as_ref(), &resource, to, self.wall.wall()).await {
            Ok(from) => {
                let _ = self.calls.send(Call::Rebased(resource.clone(), to));
                Ok(json!({ "resource": resource, "from": from.to_string(), "to": to }))
            }
            Err(error @ RebaseError::Store(StoreError::Unreachable(_))) => {
                Err(CommandError::Unavailable(error.to_string()))
            }
            Err(error) => Err(CommandError::Conflict(error.to_string())),
        }
    }
}

impl crate::admin::Control for Handle {
    fn status(&self) -> BoxFuture<'_, Arc<Status>> {
        async move {
            match self.ask(Call::Status).await {
                Ok(status) => status,
                // Control has ended: the admin side is about to. The server's own time limit answers.
                Err(_) => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn flush_meters(&self) -> BoxFuture<'_, ()> {
        async move { self.ask(Call::Flush).await.unwrap_or_default() }.boxed()
    }

    fn command(&self, command: Command) -> BoxFuture<'_, Result<serde_json::Value, CommandError>> {
        async move {
            match command {
                Command::StepDown { resource, force } => {
                    let named = resource.clone();
                    self.ask(|reply| Call::StepDown(resource, force, reply)).await?.map_err(CommandError::Conflict)?;
                    Ok(json!({ "resource": named, "stepped_down": true }))
                }
                Command::OpenGate { resource, target } => {
                    self.ask(|reply| Call::OpenGate(resource, target, reply)).await?
                }
                Command::ForgetDoor { target, id } => self.forget(&target, &id).await,
                Command::Rebase { resource, to } => self.rebase(resource, to).await,
                Command::Reload => self.reload().await,
                Command::LogLevel { level } => {
                    (self.log)(level);
                    Ok(json!({ "level": level.to_string().to_lowercase() }))
                }
            }
        }
        .boxed()
    }
}

impl Control {
    pub(super) fn call(&mut self, call: Call) {
        match call {
            Call::Status(reply) => self.report_status(reply),
            Call::Flush(reply) => self.flush(reply),
            Call::StepDown(resource, force, reply) => self.step_down(&resource, force, reply),
            Call::OpenGate(resource, target, reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(self.open_gate(&resource, target.as_deref()));
            }
            Call::Forgotten(name) => {
                tracing::warn!(target = %name.target, door = %name.id, "declared dead by an operator");
                self.say(Said::DoorForgotten { door: name.id.into(), target: name.target.into() });
            }
            Call::Rebased(resource, to) => {
                tracing::warn!(%resource, epoch = %to, "an operator believes this floor: the next election goes above it");
                self.say(Said::Rebased { resource, epoch: to });
            }
            Call::Renew(config, renewals) => {
                self.config = config;
                self.provers.renew(&renewals);
                for worker in &self.workers {
                    // It may have ended.
                    let _ = worker.send(ToWorker::Renew(Arc::clone(&renewals)));
                }
            }
            Call::Stop => self.begin_stop(),
        }
    }

    fn flush(&mut self, reply: oneshot::Sender<()>) {
        let mut flushed = Vec::new();
        for worker in &self.workers {
            let (done, wait) = oneshot::channel();
            let _ = worker.send(ToWorker::Flush(done));
            flushed.push(wait);
        }
        tokio::task::spawn_local(async move {
            for wait in flushed {
                let _ = wait.await;
            }
            let _ = reply.send(());
        });
    }

    fn open_gate(&mut self, resource: &Resource, target: Option<&str>) -> Result<serde_json::Value, CommandError> {
        let gates: Vec<GateId> = self
            .gates
            .of(resource)
            .iter()
            .copied()
            .filter(|gate| target.is_none_or(|target| *self.gates.get(*gate).name.target == *target))
            .collect();
        let [gate] = gates.as_slice() else {
            return Err(if gates.is_empty() {
                CommandError::NotFound(format!("this process guards no {resource}"))
            } else {
                CommandError::Conflict(format!(
                    "{resource} is guarded before several targets here: say which with --target"
                ))
            });
        };
        let handoff = &self.gates.get(*gate).handoff;
        let Some(epoch) = handoff.term().map(|term| term.epoch) else {
            return Err(CommandError::Conflict(format!(
                "no epoch of {resource} is known yet: there is nothing to open"
            )));
        };
        if handoff.phase() == crate::fence::handoff::Phase::Open {
            return Err(CommandError::Conflict(format!("the gate of {resource} is open")));
        }
        if *handoff.claim() != crate::fence::handoff::Claim::Standing {
            return Err(CommandError::Conflict(
                "the record of another door keeps this one shut: `epochgate status` says what ends that".to_owned(),
            ));
        }
        tracing::warn!(%resource, %epoch, "an operator opens the gate, accepting that writes may be reordered");
        self.drive(*gate, Event::ForceOpen);
        Ok(json!({ "resource": resource, "epoch": epoch, "forced": true }))
    }
}
