//! What the upstream does with a request, written as a text: `apply=@old, answer=200ms, status=503`.

use std::time::Duration;

/// A moment at which a request waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Until the test opens this latch.
    pub latch: Option<String>,
    /// Then so long.
    pub pause: Duration,
}

/// What is done with one request. The words, separated by commas:
///
/// | word | what it does |
/// |---|---|
/// | `read=WAIT` | waits before it reads the body |
/// | `slow_read=10ms` | waits so long before each piece of the body |
/// | `apply=WAIT` | waits between having the whole body and applying it |
/// | `answer=WAIT` | waits between having applied it and answering |
/// | `eager` | answers before it has read the body, then goes on all the same |
/// | `late=WAIT` | answers first, and applies it so long after |
/// | `split=WAIT` | sends half of its answer, waits, applies, and sends the rest |
/// | `skip` | does not apply it |
/// | `early` | answers without reading the body, and does not apply it |
/// | `status=503` | answers with this status |
/// | `close` | closes the connection instead of answering |
/// | `partial` | sends half an answer, then closes |
///
/// `WAIT` is a duration (`200ms`, `3s`), or `@name`: until the test opens the latch of that name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table says it")]
pub struct Script {
    pub read: Step,
    pub slow_read: Duration,
    pub apply: Step,
    pub answer: Step,
    pub eager: bool,
    pub late: Option<Step>,
    pub split: Option<Step>,
    pub skip: bool,
    pub early: bool,
    pub status: Option<u16>,
    pub close: bool,
    pub partial: bool,
}

impl Script {
    /// Reads one.
    ///
    /// # Errors
    /// Names the word that it does not know.
    pub fn parse(text: &str) -> Result<Script, String> {
        let mut script = Script::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let unknown = || format!("the upstream does not know `{word}`");
            match name {
                "read" => script.read.add(value).ok_or_else(unknown)?,
                "apply" => script.apply.add(value).ok_or_else(unknown)?,
                "answer" => script.answer.add(value).ok_or_else(unknown)?,
                "slow_read" => script.slow_read = duration(value).ok_or_else(unknown)?,
                "status" => script.status = Some(value.parse().map_err(|_| unknown())?),
                "eager" => script.eager = true,
                "late" => script.late.get_or_insert_default().add(value).ok_or_else(unknown)?,
                "split" => script.split.get_or_insert_default().add(value).ok_or_else(unknown)?,
                "skip" => script.skip = true,
                "early" => script.early = true,
                "close" => script.close = true,
                "partial" => script.partial = true,
                _ => return Err(unknown()),
            }
        }
        Ok(script)
    }
}

impl Step {
    fn add(&mut self, wait: &str) -> Option<()> {
        match wait.strip_prefix('@') {
            Some(latch) => self.latch = Some(latch.to_owned()),
            None => self.pause = duration(wait)?,
        }
        Some(())
    }
}

fn duration(text: &str) -> Option<Duration> {
    let in_millis = text.strip_suffix("ms").and_then(|number| number.parse().ok()).map(Duration::from_millis);
    in_millis.or_else(|| text.strip_suffix('s').and_then(|number| number.parse().ok()).map(Duration::from_secs))
}
