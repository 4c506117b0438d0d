//! Digests of images that only the holder of a run's key can test.
//!
//! A plain digest would tell anybody who holds an image whether it was the one that somebody had forgotten. With a
//! random key, kept outside of the run's folder, the folder can be passed on: who has the key can later show, or check,
//! which image was meant.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use hmac::{Hmac, Mac};
use rayon::prelude::*;
use retrack_checkpoint::hex::hex;
use sha2::{Digest, Sha256};

use crate::{DataError, Dataset, ImageShape};

/// What tells a key from another without telling anything of an image.
const KNOWN_TEXT: &str = "a key of retrack";

/// The key of one run, or of several.
#[derive(Clone)]
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
        let key = Self(key);
        key.put(path)?;
        Ok(key)
    }

    /// Puts the key into a new file, readable by its owner alone.
    ///
    /// # Errors
    /// The system's; a file that is there.
    pub fn put(&self, path: &Path) -> io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        io::Write::write_all(&mut file, format!("{}\n", hex(&self.0)).as_bytes())?;
        file.sync_all()
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

    /// The keyed digest of a text that is always the same, by which a key is known again.
    pub fn check(&self) -> String {
        self.of_text(KNOWN_TEXT)
    }

    /// The keyed digests of the distinct images in these rows. Blocks as in [`find`](Self::find).
    ///
    /// # Errors
    /// A row that does not exist, an image that cannot be read.
    pub fn distinct(
        &self,
        data: &Dataset,
        rows: &[usize],
        budget: usize,
    ) -> Result<BTreeSet<String>, DataError> {
        let mut found = BTreeSet::new();
        data.blocks::<DataError>(rows, budget, |block| {
            let here = (0..block.rows.len()).into_par_iter();
            let here = here.map(|index| self.of(data.shape(), block.image(index)));
            found.extend(here.collect::<Vec<_>>());
            Ok(())
        })?;
        Ok(found)
    }

    /// The rows of `data` whose images have one of these keyed digests, and which number it has there. Images that are not
    /// in memory are decoded in blocks of at most `budget` bytes.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn find(
        &self,
        data: &Dataset,
        digests: &BTreeMap<&str, usize>,
        budget: usize,
    ) -> Result<BTreeMap<usize, usize>, DataError> {
        let mut found = BTreeMap::new();
        if digests.is_empty() {
            return Ok(found);
        }
        let rows: Vec<usize> = (0..data.len()).collect();
        data.blocks::<DataError>(&rows, budget, |block| {
            let number = |index: usize| {
                let digest = self.of(data.shape(), block.image(index));
                let number = digests.get(digest.as_str())?;
                Some((block.rows[index], *number))
            };
            let here = (0..block.rows.len()).into_par_iter().filter_map(number);
            found.extend(here.collect::<Vec<_>>());
            Ok(())
        })?;
        Ok(found)
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
    fn images_are_found_by_their_keyed_digests_wherever_they_lie() {
        let shape = ImageShape {
            height: 1,
            width: 2,
            channels: 1,
        };
        let pixels = vec![1, 2, 3, 4, 1, 2, 5, 6];
        let data = Dataset::from_pixels(shape, pixels, Vec::new()).unwrap();
        let [key, other] = [[1; 32], [2; 32]].map(DigestKey);
        let digests = [[1, 2], [5, 6], [7, 8]].map(|image| key.of(shape, &image));
        let digests = digests.iter().map(String::as_str).zip(0..).collect();
        let found = key.find(&data, &digests, 1).unwrap();
        assert_eq!(found, [(0, 0), (2, 0), (3, 1)].into());
        assert!(other.find(&data, &digests, 1).unwrap().is_empty());
        let distinct = key.distinct(&data, &[0, 2, 3], 1).unwrap();
        assert_eq!(
            distinct,
            [[1, 2], [5, 6]].map(|image| key.of(shape, &image)).into()
        );
        assert_ne!(key.check(), other.check());
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
        let copy = folder.path().join("copy");
        DigestKey::open(&path).unwrap().put(&copy).unwrap();
        assert_eq!(DigestKey::open(&copy).unwrap().of(shape, &[1, 2]), first);
        assert!(DigestKey::open(&path).unwrap().put(&copy).is_err());
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
