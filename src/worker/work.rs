//! The worker's loop: mail from control, new connections, time; and how it ends.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future;
use tokio::sync::mpsc;

use super::listening::Listening;
use super::setup::Roles;
use crate::fence::mechanism::Mechanism;
use crate::guard::{GateCell, GuardDesk};
use crate::mailbox::{Account, ControlSender, GateId, Renewal, ToControl, ToWorker, WorkerId};
use crate::stamp::StampDesk;

/// The alarm looks at the clock at least so often while a quarantine runs: the runtime's timers stand still while the
/// host is suspended, the clock that quarantines are counted on does not.
const LOOK_AT_THE_CLOCK: Duration = Duration::from_secs(1);
/// Counters reach the registry at least so often.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// What was accepted last, at the end, gets so long to say its first request.
const LAST_GREETING: Duration = Duration::from_millis(50);
/// How often a worker that stops looks whether anything is under way.
const LOOK_WHETHER_QUIET: Duration = Duration::from_millis(10);

/// How a worker is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// In order.
    Stop,
    /// At once.
    Abort,
}

/// One worker.
pub(super) struct Worker {
    pub id: WorkerId,
    pub control: ControlSender,
    pub guards: Rc<GuardDesk>,
    /// By number.
    pub gates: Vec<Rc<GateCell>>,
    pub stamps: Rc<StampDesk>,
    pub listeners: Vec<Listening>,
    pub roles: Roles,
}

impl Worker {
    /// Works until it is told to stop and has stopped, or is told to end at once. To be called inside a `LocalSet`.
    ///
    /// Everything here is one future, not tasks: a panic in it ends the thread.
    pub async fn work(&self, mailbox: &mut mpsc::UnboundedReceiver<ToWorker>) {
        let end = tokio::select! {
            biased;
            end = self.serve_mail(mailbox) => end,
            () = self.accept() => End::Abort,
            () = self.ring() => End::Abort,
            () = self.flush_now_and_then() => End::Abort,
        };
        if end == End::Abort {
            return;
        }
        tokio::select! {
            biased;
            () = self.stop() => {}
            () = self.serve_mail_until_abort(mailbox) => {}
            () = self.ring() => {}
            () = self.flush_now_and_then() => {}
        }
    }

    /// Says that everything is over. Whatever is in a ledger now is lost.
    pub fn say_stopped(&self) {
        self.flush();
        let now = self.guards.clock.now();
        let unclean = |gate: &Rc<GateCell>| {
            gate.tick(now);
            gate.id().filter(|_| !gate.is_empty())
        };
        let unclean = self.gates.iter().filter_map(unclean).collect();
        self.say(ToControl::Stopped { worker: self.id, unclean });
    }

    async fn serve_mail(&self, mailbox: &mut mpsc::UnboundedReceiver<ToWorker>) -> End {
        loop {
            match mailbox.recv().await {
                Some(mail) => {
                    if let Some(end) = self.open(mail) {
                        return end;
                    }
                }
                // Control is gone: nobody would tell this worker of a new epoch any more.
                None => return End::Abort,
            }
        }
    }

    async fn serve_mail_until_abort(&self, mailbox: &mut mpsc::UnboundedReceiver<ToWorker>) {
        while self.serve_mail(mailbox).await == End::Stop {}
    }

    fn open(&self, mail: ToWorker) -> Option<End> {
        match mail {
            ToWorker::Order(gate, order) => self.with_gate(gate, |cell| cell.follow(order)),
            ToWorker::Cut { gate, below, all } => self.with_gate(gate, |cell| cell.cut(below, all)),
            ToWorker::Answer(number, answer) => {
                if let Some((gate, epoch)) = self.guards.answered(number, answer) {
                    self.with_gate(gate, |cell| cell.is_known(epoch));
                }
            }
            ToWorker::Standing(standing) => {
                // What waits was opened under the old standing: it must not be bound to the new one (DESIGN 3.4).
                let first = standing.mechanisms.keeps(Mechanism::AcceptFirst);
                for listener in self.listeners.iter().filter(|listener| listener.stamps && first) {
                    listener.accept_waiting();
                }
                self.stamps.adopt(&standing);
                self.say(ToControl::Adopted(self.id, standing.version));
            }
            ToWorker::Deadline(deadline) => self.stamps.set_deadline(deadline),
            ToWorker::Renew(renewals) => self.renew(&renewals),
            ToWorker::Report(reply) => {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(self.account());
            }
            ToWorker::Flush(reply) => {
                self.flush();
                let _ = reply.send(());
            }
            ToWorker::Ping(number) => self.say(ToControl::Pong(self.id, number)),
            ToWorker::Stop => return Some(End::Stop),
            ToWorker::Abort => return Some(End::Abort),
        }
        None
    }

    fn renew(&self, renewals: &[Renewal]) {
        for renewal in renewals {
            let Some(listening) = self.listeners.get(renewal.place) else { continue };
            if let Err(error) = self.roles.renew(listening, renewal) {
                tracing::error!(listener = %listening.name, %error, "the new settings cannot be used here: the old ones stay");
            }
        }
    }

    fn with_gate(&self, gate: GateId, act: impl FnOnce(&GateCell)) {
        match self.gates.get(gate.0) {
            Some(cell) => act(cell),
            None => tracing::error!(gate = gate.0, "control named a gate that this worker does not have"),
        }
    }

    fn say(&self, report: ToControl) {
        // Where control is gone the process ends; nobody is left to hear it.
        let _ = self.control.send(report);
    }

    fn account(&self) -> Account {
        let connections = |listener: &Listening| (listener.name.clone(), listener.limiter.open() as u64);
        Account {
            gates: self.gates.iter().filter_map(|gate| gate.account()).collect(),
            stamped: self.stamps.in_flight(),
            connections: self.listeners.iter().map(connections).collect(),
        }
    }

    async fn accept(&self) {
        future::join_all(self.listeners.iter().map(Listening::accept)).await;
        future::pending().await
    }

    /// Ticks the gates whose quarantine ends, all with one timer.
    async fn ring(&self) {
        loop {
            let now = self.guards.clock.now();
            let next = self.guards.alarm.waiting().into_iter().filter_map(|id| {
                let wakes_at = self.gates.get(id.0).and_then(|gate| gate.tick(now));
                if wakes_at.is_none() {
                    self.guards.alarm.unset(id);
                }
                wakes_at
            });
            let Some(next) = next.min() else {
                self.guards.alarm.changed().await;
                continue;
            };
            tokio::select! {
                biased;
                () = self.guards.alarm.changed() => {}
                () = tokio::time::sleep(next.since(now).min(LOOK_AT_THE_CLOCK)) => {}
            }
        }
    }

    async fn flush_now_and_then(&self) {
        loop {
            tokio::time::sleep(FLUSH_EVERY).await;
            self.flush();
        }
    }

    fn flush(&self) {
        self.listeners.iter().for_each(|listener| listener.meters.flush());
    }

    /// Accepts what waits, listens no more, and waits until nothing is under way.
    async fn stop(&self) {
        let mut accepted = 0;
        for listener in &self.listeners {
            accepted += listener.accept_waiting();
            listener.stop();
        }
        if accepted > 0 {
            tokio::time::sleep(LAST_GREETING).await;
        }
        self.listeners.iter().for_each(Listening::finish);
        while !self.is_quiet() {
            tokio::time::sleep(LOOK_WHETHER_QUIET).await;
        }
    }

    fn is_quiet(&self) -> bool {
        self.listeners.iter().all(Listening::is_quiet)
            && self.stamps.running() == 0
            && self.gates.iter().all(|gate| gate.running() == 0)
    }
}
