//! Digests of images that only the holder of a run's key can test.
//!
//! A plain digest would tell anybody who holds an image whether it was the one that somebody had forgotten. With a
//! random key, kept outside of the run's folder, the folder can be passed on: who has the key can later show, or check,
//! which image was meant.

use std::io;
use std::path::Path;

use hmac::{Hmac, Mac};
use retrack_checkpoint::hex::hex;
use sha2::{Digest, Sha256};

use crate::ImageShape;

/// The key of one run.
pub struct DigestKey([u8; 32]);

impl DigestKey {
    /// The key in this file, or a new one that is put there, readable by its owner alone.
    ///
    /// # Errors
    /// The system's; a file that holds no key.
    pub fn open_or_create(path: &Path) -> io::Result<Self> {
        match Self::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        io::Write::write_all(&mut file, format!("{}\n", hex(&key)).as_bytes())?;
        file.sync_all()?;
        Ok(Self(key))
    }

    /// The key in this file: its first line.
    ///
    /// # Errors
    /// The system's; a file that holds no key.
    pub fn open(path: &Path) -> io::Result<Self> {
        let wrong = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "not a key: 64 hexadecimal digits",
            )
        };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path)?;
        io::Read::read_to_end(&mut io::Read::take(file, 100), &mut bytes)?;
        let line = bytes
            .split(|&byte| byte == b'\n')
            .next()
            .unwrap_or_default();
        let text = std::str::from_utf8(line).map_err(|_| wrong())?.trim();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut key = [0; 32];
        for (place, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(key))
    }

    /// The keyed digest of an image: HMAC-SHA-256 (RFC 2104) of its height, width and channels, each 8 bytes with the
    /// lowest first, and its pixels; hexadecimal.
    pub fn of(&self, shape: ImageShape, pixels: &[u8]) -> String {
        let sizes =
            [shape.height, shape.width, shape.channels].map(|size| (size as u64).to_le_bytes());
        hex(&hmac(&self.0, &[&sizes.concat(), pixels]))
    }

    /// The keyed digest of a text: HMAC-SHA-256 of its bytes, hexadecimal.
    pub fn of_text(&self, text: &str) -> String {
        hex(&hmac(&self.0, &[text.as_bytes()]))
    }
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// RFC 2104 with SHA-256 of the parts of a message.
fn hmac(key: &[u8], message: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<sha2_010::Sha256>::new_from_slice(key).expect("a key of any length");
    message.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyed_digest_is_hmac_sha_256() {
        // RFC 4231, test cases 1 and 2; shorter keys are padded with zeros.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        assert_eq!(
            hex(&hmac(&key, &[b"Hi ", b"There"])),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        assert_eq!(
            hex(&hmac(&key, &[b"what do ya want for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn a_key_is_random_private_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let shape = ImageShape {
            height: 1,
            width: 2,
            channels: 1,
        };
        let first = DigestKey::open_or_create(&path).unwrap().of(shape, &[1, 2]);
        assert_eq!(
            DigestKey::open_or_create(&path).unwrap().of(shape, &[1, 2]),
            first
        );
        let other = DigestKey::open_or_create(&folder.path().join("other")).unwrap();
        assert_ne!(other.of(shape, &[1, 2]), first);
        let turned = ImageShape {
            height: 2,
            width: 1,
            channels: 1,
        };
        assert_ne!(DigestKey::open(&path).unwrap().of(turned, &[1, 2]), first);
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap());
            assert_eq!(mode & 0o777, 0o600);
        }
        // More may follow the key.
        let key = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{key}{}\n", "é".repeat(200))).unwrap();
        assert_eq!(DigestKey::open(&path).unwrap().of(shape, &[1, 2]), first);
        for wrong in [
            "",
            "abc",
            "+f".repeat(32).as_str(),
            &"g".repeat(64),
            &"é".repeat(32),
        ] {
            std::fs::write(&path, wrong).unwrap();
            assert!(DigestKey::open(&path).is_err(), "{wrong}");
        }
    }
}
