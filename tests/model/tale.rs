//! What followed from a step, in words: collected only where somebody wants to read it.

/// The words, where they are wanted.
#[derive(Default)]
pub struct Tale(Option<Vec<String>>);

impl Tale {
    /// One that nobody reads.
    pub fn unread() -> Tale {
        Tale(None)
    }

    /// One that is read.
    pub fn read() -> Tale {
        Tale(Some(Vec::new()))
    }

    /// Whether somebody reads it.
    pub fn is_read(&self) -> bool {
        self.0.is_some()
    }

    /// Adds a sentence.
    pub fn add(&mut self, sentence: impl FnOnce() -> String) {
        if let Some(sentences) = &mut self.0 {
            sentences.push(sentence());
        }
    }

    /// What was told, in one line.
    pub fn line(self) -> String {
        self.0.unwrap_or_default().join("; ")
    }
}
