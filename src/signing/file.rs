//! A key as it is kept: at least 32 bytes, in base64, on one line of a file of its own.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use zeroize::Zeroizing;

use crate::config::resolved::{SignatureKey, Signatures};
use crate::config::secrets::is_open_to_all;
use crate::fence::KeyId;

/// As long as the tag: a shorter key is easier to guess than the signature itself.
const LEAST_BYTES: usize = 32;
/// What is longer is something else.
const LARGEST_FILE: usize = 4096;

/// What is wrong with a key. Nothing that the file holds is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key '{kid}' in {}: {what}; {help}", file.display())]
pub struct KeyProblem {
    /// Which key.
    pub kid: KeyId,
    /// Its file.
    pub file: PathBuf,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: &'static str,
}

const MAKE: &str = "make one with: openssl rand -base64 32";

/// Reads a key. What it was read from is wiped from memory; what `ring` keeps of it cannot be.
pub fn read(key: &SignatureKey) -> Result<hmac::Key, KeyProblem> {
    let problem =
        |(what, help): (String, &'static str)| KeyProblem { kid: key.kid, file: key.file.clone(), what, help };
    let unreadable =
        |error: io::Error| problem((format!("it cannot be read: {error}"), "name a file that this process may read"));
    let text = contents(&key.file).map_err(unreadable)?;
    if is_in_view(key) {
        let file = key.file.display();
        tracing::warn!(kid = %key.kid, %file, "every user of this host can read a key of signed stamps: chmod o= the file");
    }
    bytes(&text).map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes)).map_err(problem)
}

fn contents(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // With room for all that is read, so that no buffer is left behind that has grown out of its place.
    let mut text = Zeroizing::new(Vec::with_capacity(LARGEST_FILE + 64));
    File::open(path)?.take(LARGEST_FILE as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// The keys that every user of this host can read.
pub fn in_view(settings: &Signatures) -> Vec<&SignatureKey> {
    settings.keys.iter().filter(|key| is_in_view(key)).collect()
}

fn is_in_view(key: &SignatureKey) -> bool {
    is_open_to_all(&key.file).unwrap_or(false)
}

/// The bytes that a file's text stands for.
fn bytes(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, (String, &'static str)> {
    let line = text.trim_ascii();
    if line.is_empty() {
        return Err(("it is empty".to_owned(), MAKE));
    }
    if text.len() > LARGEST_FILE || line.contains(&b'\n') {
        return Err(("it is more than one line".to_owned(), "write the key in base64 on one line, and nothing else"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST_FILE));
    // The error would say which byte it did not like.
    STANDARD.decode_vec(line, &mut bytes).map_err(|_| ("it is not base64".to_owned(), MAKE))?;
    if bytes.len() < LEAST_BYTES {
        return Err((format!("it has {} bytes, and at least {LEAST_BYTES} are needed", bytes.len()), MAKE));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const GOOD: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn said(text: &str) -> String {
        bytes(text.as_bytes()).map_or_else(|(what, _)| what, |bytes| format!("{} bytes", bytes.len()))
    }

    #[test]
    fn a_key_is_one_line_of_base64_and_long_enough() {
        assert_eq!(said(GOOD), "32 bytes");
        assert_eq!(said(&format!("{GOOD}\n")), "32 bytes");
        assert_eq!(said(&format!("  {GOOD}\r\n\n")), "32 bytes", "what editors add");
        assert_eq!(said(&STANDARD.encode([7; 64])), "64 bytes");
        for (bad, why) in [
            ("", "empty"),
            ("\n\n", "empty"),
            (&GOOD[..40], "has 30 bytes, and at least 32 are needed"),
            (&format!("{GOOD}\n{GOOD}\n"), "more than one line"),
            (&GOOD[..43], "not base64"),
            (&format!("{} {}", &GOOD[..20], &GOOD[20..]), "not base64"),
            ("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f!", "not base64"),
            (&"A".repeat(LARGEST_FILE + 4), "more than one line"),
        ] {
            assert!(said(bad).contains(why), "{bad:?}: {}", said(bad));
        }
    }

    #[test]
    fn a_problem_names_the_file_and_nothing_that_it_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("k1.key");
        let secret = "not-a-key-but-somebodys-password";
        std::fs::write(&file, secret).expect("it can be written");
        let key = SignatureKey { kid: "k1".parse().expect("an id"), file: file.clone() };
        let problem = read(&key).expect_err("it is no key");
        let said = format!("{problem} {problem:?}");
        assert!(said.contains("k1.key") && !said.contains(secret), "{said}");
        std::fs::remove_file(&file).expect("it is there");
        assert!(read(&key).expect_err("it is gone").what.contains("cannot be read"));
    }

    #[test]
    fn a_file_that_all_can_read_is_known() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let key = SignatureKey { kid: "k1".parse().expect("an id"), file: file.path().to_owned() };
        for (mode, open) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("it is ours");
            assert_eq!(is_in_view(&key), open, "{mode:o}");
        }
    }
}
