//! Refusals of gRPC calls: a Trailers-only answer, with the details that client libraries unpack.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::Response;
use http::header::{self, HeaderName, HeaderValue};
use prost::Message as _;

use super::body::Answer;
use crate::fence::Refusal;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const DOMAIN: &str = "epochgate";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: std::collections::BTreeMap<String, String>,
}

fn error_info(refusal: &Refusal) -> ErrorInfo {
    let known = [
        ("outcome", Some(refusal.reason.outcome().as_str().to_owned())),
        ("resource", refusal.resource.as_ref().map(ToString::to_string)),
        ("epoch", refusal.epoch.map(|epoch| epoch.to_string())),
        ("required_epoch", refusal.required_epoch.map(|epoch| epoch.to_string())),
        ("writer", refusal.writer.as_ref().map(ToString::to_string)),
        ("leader", refusal.leader.as_ref().map(|leader| leader.id.to_string())),
        ("leader_address", refusal.leader.as_ref().and_then(|leader| leader.address.as_deref()).map(str::to_owned)),
        ("blocked_by", refusal.blocked_by.as_deref().map(str::to_owned)),
    ];
    ErrorInfo {
        reason: refusal.reason.as_str().to_owned(),
        domain: DOMAIN.to_owned(),
        metadata: known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect(),
    }
}

/// The answer to a refused call, in the content type that it came in.
pub fn refusal(refusal: &Refusal, content_type: Option<&HeaderValue>) -> Response<Answer> {
    let code = refusal.reason.grpc() as i32;
    let info = Any { type_url: ERROR_INFO.to_owned(), value: error_info(refusal).encode_to_vec() };
    let status = Status { code, message: refusal.detail.clone().into_owned(), details: vec![info] };
    let mut answer = Response::new(Answer::empty());
    let headers = answer.headers_mut();
    let content_type = content_type.cloned().unwrap_or(HeaderValue::from_static("application/grpc"));
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(STATUS, HeaderValue::from(code));
    headers.insert(MESSAGE, percent_encoded(&refusal.detail));
    let details = STANDARD_NO_PAD.encode(status.encode_to_vec());
    headers.insert(DETAILS, HeaderValue::from_str(&details).expect("base64 is plain text"));
    answer
}

/// As the gRPC protocol wants its message: printable ASCII but `%`, all else as `%XX` of its UTF-8.
fn percent_encoded(text: &str) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(byte);
        } else {
            encoded.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    HeaderValue::from_bytes(&encoded).expect("printable ASCII is a field value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{Epoch, Reason};

    #[test]
    fn a_client_library_finds_the_reason_and_the_epochs() {
        let refused = Refusal::new(Reason::StaleEpoch, "Epoch 41 is over.").with_epochs(Epoch::new(41), Epoch::new(42));
        let answer = refusal(&refused, Some(&HeaderValue::from_static("application/grpc+proto")));
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/grpc+proto");
        assert_eq!(answer.headers()["grpc-status"], "9");
        assert_eq!(answer.headers()["grpc-message"], "Epoch 41 is over.");
        let details = STANDARD_NO_PAD.decode(&answer.headers()["grpc-status-details-bin"]).expect("base64");
        let status = Status::decode(details.as_slice()).expect("a status");
        assert_eq!((status.code, status.details[0].type_url.as_str()), (9, ERROR_INFO));
        let info = ErrorInfo::decode(status.details[0].value.as_slice()).expect("an error info");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("stale_epoch", "epochgate"));
        let metadata: Vec<_> = info.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(metadata, [("epoch", "41"), ("outcome", "not_applied"), ("required_epoch", "42")]);
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encoded("50 % ü\n"), "50 %25 %C3%BC%0A");
    }
}
