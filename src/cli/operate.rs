//! Having a running process do something: one POST, and what it answered.

use serde_json::Value;

use super::client::{self, Address, Answer, CHANGE_LIMIT, ClientError};
use super::exit::Exit;
use super::options::DEFAULT_ADMIN;
use super::paint::plain;
use super::{block_on, complain};

/// Asks the process to do something. Prints `done` when it did; what it answered when it refused, which ends with
/// `refused`.
pub fn post(admin: &Address, path: &str, done: &str, refused: Exit) -> Exit {
    match block_on(client::send(admin, client::request("POST", path, ""), CHANGE_LIMIT)) {
        Ok(answer) if is_of(&answer, "application/json") && answer.status.is_success() => {
            super::print(&format!("{}\n", with_admin(done, admin)))
        }
        Ok(answer) if is_of(&answer, "application/problem+json") => {
            complain::error(&with_admin(&plain(&said(&answer)), admin));
            refused
        }
        Ok(answer) => not_ours(admin, &answer),
        Err(error) => unreachable(&error),
    }
}

/// A text with commands between backticks, each as it is to be typed for the process at `admin`; one that is to be said
/// elsewhere ("at the leader's sidecar") stays as it is, and so does one that asks no process.
pub fn with_admin(text: &str, admin: &Address) -> String {
    const ASKED: [&str; 5] = ["status", "step-down", "gate open", "doors", "rebase"];
    if admin.to_string() == DEFAULT_ADMIN {
        return text.to_owned();
    }
    let mut pieces = text.split('`').peekable();
    let (mut told, mut inside) = (String::with_capacity(text.len()), false);
    while let Some(piece) = pieces.next() {
        told.push_str(piece);
        let command = piece.strip_prefix("epochgate ").filter(|_| inside);
        let asks = command.is_some_and(|command| ASKED.iter().any(|asked| command.starts_with(asked)));
        let elsewhere = pieces.peek().is_some_and(|next| next.starts_with(" at the leader's"));
        if asks && !elsewhere {
            told.push_str(&format!(" --admin {}", plain(&admin.to_string())));
        }
        if pieces.peek().is_some() {
            told.push('`');
        }
        inside = !inside;
    }
    told
}

/// Says why somebody who only looks sees nothing: the process cannot tell now, or it is none of ours.
pub fn no_answer_to_look_at(admin: &Address, answer: &Answer) -> Exit {
    if !is_of(answer, "application/problem+json") {
        return not_ours(admin, answer);
    }
    complain::error(&plain(&said(answer)));
    Exit::Unreachable
}

/// Says that what answered is not the admin side of epochgate.
fn not_ours(admin: &Address, answer: &Answer) -> Exit {
    complain::error_with_help(
        &format!("what listens at {admin} answered {}, and not as epochgate does", plain(&said(answer))),
        &"is this the admin address of an epochgate process (--admin, EPOCHGATE_ADMIN)?",
    );
    Exit::Unreachable
}

fn is_of(answer: &Answer, kind: &str) -> bool {
    let found = answer.headers.get(http::header::CONTENT_TYPE).and_then(|found| found.to_str().ok());
    found.is_some_and(|found| found.split(';').next().is_some_and(|found| found.trim() == kind))
}

/// Says that there is no answer, and what to do.
pub fn unreachable(error: &ClientError) -> Exit {
    match error {
        ClientError::Connect(address, _) => complain::error_with_help(
            error,
            &format!(
                "is the process running, and is {address} its admin address (--admin, EPOCHGATE_ADMIN)? \
                 What changes something is taken on loopback or its unix socket only"
            ),
        ),
        ClientError::Broken(..) => complain::error_with_help(
            error,
            &"is this the admin address of an epochgate process? If it was asked to do something, that may have \
              happened: look with `epochgate status`",
        ),
        ClientError::Slow(..) => complain::error_with_help(
            error,
            &"the process may be stuck, or stopped; if it was asked to do something, that may still happen: look with \
              `epochgate status`",
        ),
    }
    Exit::Unreachable
}

/// What a refusal says: the problem's detail where there is one, else the status.
pub fn said(answer: &Answer) -> String {
    let problem: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let detail = problem.as_ref().and_then(|problem| problem.get("detail")).and_then(Value::as_str);
    detail.map_or_else(|| answer.status.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_in_its_own_words_and_a_stranger_in_none() {
        let answer = |kind: &str, body: &'static str| Answer {
            status: http::StatusCode::CONFLICT,
            headers: [(http::header::CONTENT_TYPE, kind.parse().expect("a type"))].into_iter().collect(),
            body: body.into(),
        };
        let refusal = answer("application/problem+json", r#"{"detail":"no other candidate","title":"x"}"#);
        assert_eq!(said(&refusal), "no other candidate");
        assert!(is_of(&refusal, "application/problem+json") && !is_of(&refusal, "application/json"));
        let stranger = answer("text/html; charset=utf-8", "<html>");
        assert_eq!(said(&stranger), "409 Conflict");
        assert!(is_of(&stranger, "text/html"));
    }

    #[test]
    fn a_process_that_is_not_there_ends_with_69() {
        let address: Address = "unix:/nowhere/at/all.sock".parse().expect("an address");
        assert_eq!(post(&address, "/api/v1/step-down?resource=orders", "", Exit::Leadership), Exit::Unreachable);
    }
}
