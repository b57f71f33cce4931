//! Refusals as answers: `application/problem+json` (RFC 9457), or a gRPC status.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use serde::Serialize;

use super::body::Answer;
use super::classify::Seen;
use super::{grpc, head};
use crate::fence::verdict::LeaderHint;
use crate::fence::{Epoch, Outcome, Reason, Refusal, Resource, WriterId};

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
/// When a refusal that time may cure is worth another try, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    reason: &'static str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a Resource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required_epoch: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writer: Option<&'a WriterId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<&'a LeaderHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_by: Option<&'a str>,
}

#[derive(Serialize)]
struct PlainProblem<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

/// The answer to a refused request.
pub fn refusal(refusal: &Refusal, seen: &Seen) -> Response<Answer> {
    let reason = refusal.reason;
    let mut answer = if seen.grpc {
        grpc::refusal(refusal, seen.head.headers.get(header::CONTENT_TYPE))
    } else {
        let problem = Problem {
            r#type: reason.urn(),
            title: reason.title(),
            status: reason.status(),
            detail: &refusal.detail,
            reason: reason.as_str(),
            outcome: reason.outcome().as_str(),
            resource: refusal.resource.as_ref(),
            epoch: refusal.epoch,
            required_epoch: refusal.required_epoch,
            writer: refusal.writer.as_ref(),
            leader: refusal.leader.as_ref(),
            blocked_by: refusal.blocked_by.as_deref(),
        };
        problem_json(reason.status(), &problem, &seen.head.method)
    };
    let headers = answer.headers_mut();
    headers.insert(head::REFUSED, HeaderValue::from_static(reason.as_str()));
    if reason.is_worth_retrying() {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    answer
}

/// The answer to a request that the fence has no business with: it is no request that can be served.
pub fn plain(status: StatusCode, detail: &str, method: &Method) -> Response<Answer> {
    plain_with(status, detail, None, method)
}

/// The same for a request that the fence had let through: it says what became of it (R7).
pub fn spoilt(status: StatusCode, detail: &str, outcome: Outcome, method: &Method) -> Response<Answer> {
    plain_with(status, detail, Some(outcome.as_str()), method)
}

fn plain_with(status: StatusCode, detail: &str, outcome: Option<&'static str>, method: &Method) -> Response<Answer> {
    let title = status.canonical_reason().unwrap_or("Error");
    problem_json(
        status.as_u16(),
        &PlainProblem { r#type: "about:blank", title, status: status.as_u16(), detail, outcome },
        method,
    )
}

fn problem_json(status: u16, problem: &impl Serialize, method: &Method) -> Response<Answer> {
    let body = serde_json::to_vec(problem).expect("plain structs of text and numbers are always JSON");
    // HTTP/2 would send the body of an answer to HEAD; and its length is no matter to anyone.
    let body = if method == Method::HEAD { Answer::empty() } else { Answer::full(Bytes::from(body)) };
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).expect("the table has only statuses that HTTP knows");
    answer.headers_mut().insert(header::CONTENT_TYPE, PROBLEM);
    answer
}

/// What became of a request that a sidecar further on refused: as that refusal says it.
pub fn outcome_of_passed_refusal(value: &[u8]) -> Option<Outcome> {
    Reason::ALL.iter().find(|reason| reason.as_str().as_bytes() == value).map(|reason| reason.outcome())
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::protocol::Party;

    fn seen(method: &str) -> Seen {
        let (head, ()) = Request::builder().method(method).uri("/").body(()).expect("a request").into_parts();
        let peer = "10.0.0.7:1".parse::<crate::peer::Peer>().expect("address");
        Seen::unread(head, Party::unnamed(peer, Default::default()))
    }

    async fn text(answer: Response<Answer>) -> String {
        let body = answer.into_body().collect().await.expect("a body in memory").to_bytes();
        String::from_utf8(body.to_vec()).expect("JSON is text")
    }

    #[tokio::test]
    async fn what_is_known_is_there_and_nothing_is_null() {
        let mut full = Refusal::new(Reason::StaleEpoch, "Epoch 41 is over.")
            .with_resource(&"orders/7".parse().expect("a resource"))
            .with_epochs(Epoch::new(41), Epoch::new(42))
            .with_writer(Some(&"orders-a".parse().expect("an id")))
            .with_leader(Some(LeaderHint {
                id: "orders-b".parse().expect("an id"),
                address: Some("http://10.0.0.8:8081".into()),
            }));
        full.blocked_by = Some("guard-1-9f3c2a7b".into());
        let answer = refusal(&full, &seen("PUT"));
        assert_eq!(answer.status(), 412);
        assert_eq!(answer.headers()["fencing-refused"], "stale_epoch");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert!(!answer.headers().contains_key("retry-after"));
        assert_eq!(
            text(answer).await,
            concat!(
                r#"{"type":"urn:epochgate:stale_epoch","title":"The write is of an epoch that is over","status":412,"#,
                r#""detail":"Epoch 41 is over.","reason":"stale_epoch","outcome":"not_applied","resource":"orders/7","#,
                r#""epoch":"41","required_epoch":"42","writer":"orders-a","#,
                r#""leader":{"id":"orders-b","address":"http://10.0.0.8:8081"},"blocked_by":"guard-1-9f3c2a7b"}"#,
            )
        );
        let answer = refusal(&Refusal::new(Reason::HoldFull, "Full."), &seen("PUT"));
        assert_eq!(answer.headers()["retry-after"], "1");
        assert!(!text(answer).await.contains("null"));
    }

    #[tokio::test]
    async fn no_body_answers_head_and_a_plain_problem_names_no_reason() {
        let answer = refusal(&Refusal::new(Reason::NotArmed, "Wait."), &seen("HEAD"));
        assert_eq!((answer.status().as_u16(), text(answer).await.as_str()), (503, ""));
        let answer = plain(StatusCode::BAD_REQUEST, "Two hosts.", &Method::PUT);
        assert!(!answer.headers().contains_key("fencing-refused"));
        assert_eq!(
            text(answer).await,
            r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"Two hosts."}"#
        );
    }

    #[test]
    fn every_reason_is_known_again() {
        for reason in Reason::ALL {
            let value = HeaderValue::from_static(reason.as_str());
            assert_eq!(outcome_of_passed_refusal(value.as_bytes()), Some(reason.outcome()));
        }
        assert_eq!(outcome_of_passed_refusal(b"whim"), None);
    }
}
