//! Files damaged as accidents and attackers damage them: the same ones for the same seed.

/// Longest file that is made.
const LONGEST: usize = 1 << 16;

/// Numbers that break arithmetic.
const EXTREME: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];
/// The same for text.
const WORDS: [&str; 14] = [
    "-1",
    "0",
    "1e999",
    "-1e999",
    "NaN",
    "null",
    "18446744073709551616",
    "9223372036854775807",
    "4294967296",
    "\"\"",
    "[]",
    "{}",
    "../",
    "\u{0}",
];

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Mutator(pub u64);

impl Mutator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`; 0 where that is 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// One of the seeds with one to six changes.
    pub fn file(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut file = seeds[self.below(seeds.len())].clone();
        // Half of them hardly damaged: those get the furthest.
        let changes = if self.below(2) == 0 {
            1
        } else {
            1 + self.below(6)
        };
        for _ in 0..changes {
            self.change(&mut file, seeds);
            file.truncate(LONGEST);
        }
        file
    }

    fn change(&mut self, file: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let length = file.len();
        let at = self.below(length);
        match self.below(10) {
            0 | 1 if length > 0 => file[at] ^= 1 << self.below(8),
            2 if length > 0 => file[at] = self.next() as u8,
            3 => file.truncate(at),
            // A number in a length or an offset, of every width and either order.
            4 | 5 => {
                let number = match self.below(3) {
                    0 => EXTREME[self.below(EXTREME.len())],
                    1 => length as u64 + self.next() % 16,
                    _ => self.next() >> self.below(64),
                };
                let width = [1, 2, 4, 8][self.below(4)];
                let mut bytes = number.to_le_bytes()[..width].to_vec();
                if self.below(2) == 0 {
                    bytes.reverse();
                }
                let end = (at + width).min(length);
                file[at..end].copy_from_slice(&bytes[..end - at]);
            }
            // A part twice, or gone.
            6 => {
                let end = at + self.below((length - at).min(512));
                let part = file[at..end].to_vec();
                let to = self.below(length);
                let times = if self.below(20) == 0 { 64 } else { 1 };
                for _ in 0..times {
                    file.splice(to..to, part.iter().copied());
                }
            }
            7 => {
                let end = at + self.below((length - at).min(512));
                file.drain(at..end);
            }
            // The end of another file.
            8 => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len());
                file.truncate(at);
                file.extend_from_slice(&other[from..]);
            }
            // A word in place of a number or between two.
            _ => {
                let word = WORDS[self.below(WORDS.len())];
                let digits = |byte: u8| byte.is_ascii_digit() || byte == b'.' || byte == b'-';
                let start = (at..length).find(|&i| digits(file[i])).unwrap_or(at);
                let end = (start..length)
                    .find(|&i| !digits(file[i]))
                    .unwrap_or(length);
                file.splice(start..end, word.bytes());
            }
        }
    }
}
