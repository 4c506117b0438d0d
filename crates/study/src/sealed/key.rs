//! The file with the owner's key, as `age-keygen` writes it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use age::x25519::{Identity, Recipient};
use retrack_checkpoint::files::read_text;

use crate::evidence::now;
use crate::failure::Failure;

/// What a file of keys makes possible.
pub struct KeyFile {
    /// The file.
    pub path: PathBuf,
    /// Open what was sealed for them.
    pub(super) identities: Vec<Identity>,
    /// What is sealed is sealed for all of them.
    pub(super) recipients: Vec<Recipient>,
}

/// How a file of keys is made.
const MAKE: &str = "`age-keygen -o FILE` makes such a file";

impl KeyFile {
    /// The keys in a file; `None` where there is none.
    ///
    /// # Errors
    /// A file that holds no key, or one of another kind; the system's.
    pub fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(refused(path, &not_text(path)));
            }
            Err(error) => return Err(Failure::read(path, error)),
        };
        Self::parse(path, &text)
            .map(Some)
            .map_err(|problem| refused(path, &problem))
    }

    fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let mut keys = Self {
            path: path.into(),
            identities: Vec::new(),
            recipients: Vec::new(),
        };
        if is_encrypted(text.as_bytes()) {
            return Err(encrypted(path));
        }
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            // Not a word of a line is repeated: it may hold what is secret.
            let wrong = |what: &str| format!("line {} {what}", number + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            } else if line.starts_with("AGE-SECRET-KEY-1") {
                let identity: Identity = line
                    .parse()
                    .map_err(|_| wrong("is a key that was changed or cut short; put it back"))?;
                keys.recipients.push(identity.to_public());
                keys.identities.push(identity);
            } else if line.starts_with("age1") {
                let recipient = line.parse();
                keys.recipients.push(recipient.map_err(|_| {
                    wrong("is a recipient of another kind, or was changed; an X25519 one is read")
                })?);
            } else if line.starts_with("AGE-") || line.starts_with("ssh-") || line.contains("SSH") {
                let other = "is a key of another kind; X25519 ones are read";
                return Err(format!("{}: {MAKE}", wrong(other)));
            } else {
                return Err(format!("{}: {MAKE}", wrong("is no key of age")));
            }
        }
        match keys.recipients.is_empty() {
            true => Err(format!("no key of age is in it: {MAKE}")),
            false => Ok(keys),
        }
    }

    /// Makes a file with a new key, readable by its owner alone.
    ///
    /// # Errors
    /// The system's.
    pub fn make(path: &Path) -> Result<Self, Failure> {
        let identity = Identity::generate();
        let public = identity.to_public();
        let text = format!(
            "# created: {} UTC by retrack\n# public key: {public}\n{}\n",
            now(),
            identity.to_string().expose_secret()
        );
        let write = || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error| Failure::writing(path, error))?;
        Ok(Self {
            path: path.into(),
            identities: vec![identity],
            recipients: vec![public],
        })
    }

    /// Whether it opens what was sealed for it.
    pub fn opens(&self) -> bool {
        !self.identities.is_empty()
    }
}

fn refused(path: &Path, problem: &str) -> Failure {
    Failure::input(format!("{}: {problem}", path.display()))
}

/// Whether a file is one that age encrypted.
pub(super) fn is_encrypted(start: &[u8]) -> bool {
    start.starts_with(b"age-encryption.org/") || start.starts_with(b"-----BEGIN AGE ENCRYPTED")
}

fn encrypted(path: &Path) -> String {
    format!(
        "this key is itself encrypted, with a passphrase that is not asked for here; decrypt it first, such as with \
         `age -d -o PLAIN {}`, give PLAIN, and remove that afterwards",
        path.display()
    )
}

/// Why a file that is no text is no key.
fn not_text(path: &Path) -> String {
    let start =
        retrack_checkpoint::files::read_bounded(path, retrack_checkpoint::files::LARGEST_TEXT);
    match start.is_ok_and(|start| is_encrypted(&start)) {
        true => encrypted(path),
        false => format!("no key of age is in it: {MAKE}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    #[test]
    fn a_new_key_is_private_and_read_again_in_the_form_of_age_keygen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(KeyFile::read(&path).unwrap().is_none());
        let made = KeyFile::make(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("# created: 20"), "{text}");
        let public = lines[1].strip_prefix("# public key: ").unwrap();
        assert_eq!(public, made.recipients[0].to_string());
        assert!(lines[2].starts_with("AGE-SECRET-KEY-1"), "{text}");
        let read = KeyFile::read(&path).unwrap().unwrap();
        assert!(read.opens() && read.recipients == made.recipients);
        assert!(KeyFile::make(&path).is_err());
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap());
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_recipient_seals_and_does_not_open() {
        let text = format!("# for whoever sends\n\n  {PUBLIC}\n");
        let keys = KeyFile::parse(Path::new("k"), &text).unwrap();
        assert!(!keys.opens() && keys.recipients.len() == 1);
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_reason_and_nothing_of_it_is_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for (content, why) in [
            (&b""[..], "no key of age is in it"),
            (b"# age1...\n", "no key of age is in it"),
            (b"secret words", "line 1 is no key of age"),
            (
                b"AGE-SECRET-KEY-1QQQSECRET",
                "line 1 is a key that was changed or cut short",
            ),
            (
                b"\nAGE-SECRET-KEY-PQ-1QQQSECRET",
                "line 2 is a key of another kind",
            ),
            (b"AGE-PLUGIN-YUBIKEY-1SECRET", "another kind"),
            (
                b"-----BEGIN OPENSSH PRIVATE KEY-----\nSECRET",
                "another kind",
            ),
            (b"ssh-ed25519 AAAA", "another kind"),
            (b"age1secret", "line 1 is a recipient of another kind"),
            (b"age-encryption.org/v1\n-> scrypt", "age -d -o PLAIN"),
            (b"age-encryption.org/v1\n\xff", "age -d -o PLAIN"),
            (b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl", "passphrase"),
            (b"\xff\xfe", "no key of age"),
        ] {
            std::fs::write(&path, content).unwrap();
            let Err(failure) = KeyFile::read(&path) else {
                panic!("{why}");
            };
            assert_eq!(failure.code, 2);
            assert!(failure.message.contains(why), "{why}: {}", failure.message);
            let lower = failure.message.to_lowercase();
            assert!(!lower.contains("secret"), "{lower}");
        }
        assert!(KeyFile::read(folder.path()).is_err());
    }
}
