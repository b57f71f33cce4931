//! Having a running process do something: one POST, and what it answered.

use serde_json::Value;

use super::client::{self, Address, Answer, CHANGE_LIMIT, ClientError};
use super::exit::Exit;
use super::paint::plain;
use super::{block_on, complain};

/// Asks the process to do something. Prints `done` when it did; what it answered when it refused, which ends with
/// `refused`.
pub fn post(admin: &Address, path: &str, done: &str, refused: Exit) -> Exit {
    match block_on(client::send(admin, client::request("POST", path, ""), CHANGE_LIMIT)) {
        Ok(answer) if answer.status.is_success() => super::print(&format!("{done}\n")),
        Ok(answer) => {
            complain::error(&plain(&said(&answer)));
            refused
        }
        Err(error) => unreachable(&error),
    }
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

/// What a refusal says: the problem's detail where there is one, else the body as it is.
pub fn said(answer: &Answer) -> String {
    let text = answer.text();
    let problem: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let word = |key| problem.as_ref().and_then(|problem| problem.get(key)).and_then(Value::as_str).map(str::to_owned);
    let detail = word("detail").or_else(|| word("error")).or_else(|| word("title"));
    detail.unwrap_or_else(|| match text.trim() {
        "" => format!("the process answered {}", answer.status),
        text => text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_in_its_own_words() {
        let answer = |body: &'static str| Answer {
            status: http::StatusCode::CONFLICT,
            headers: http::HeaderMap::new(),
            body: body.into(),
        };
        assert_eq!(said(&answer(r#"{"detail":"no other candidate","title":"x"}"#)), "no other candidate");
        assert_eq!(said(&answer("not here\n")), "not here");
        assert_eq!(said(&answer("")), "the process answered 409 Conflict");
    }

    #[test]
    fn a_process_that_is_not_there_ends_with_69() {
        let address: Address = "unix:/nowhere/at/all.sock".parse().expect("an address");
        assert_eq!(post(&address, "/api/v1/step-down?resource=orders", "", Exit::Leadership), Exit::Unreachable);
    }
}
