//! Regular expressions of Python's `re` (3.11), said in those of `fancy_regex`: what both have means the same, and what the
//! second lacks or reads in another way is refused. For names without line breaks or letters beyond ASCII, as layers have
//! them.

use std::collections::HashMap;
use std::fmt::Write;

/// Groups within each other.
const DEEPEST: usize = 100;

/// What is wrong, where (in characters), and what to write in its place.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub problem: String,
    pub place: usize,
    pub remedy: &'static str,
}

/// PEFT stops at it as well.
const CORRECT: &str = "correct the pattern, which PEFT cannot read either";

/// The least and most characters that an expression takes.
type Width = (u64, u64);

/// How an item may be followed.
#[derive(PartialEq)]
enum Kind {
    Plain,
    /// A place, which cannot be repeated.
    Place,
    Repeated,
}

struct Item {
    text: String,
    width: Width,
    kind: Kind,
}

impl Item {
    fn new(text: String, width: Width) -> Self {
        Self {
            text,
            width,
            kind: Kind::Plain,
        }
    }

    fn place(text: &str) -> Self {
        Self {
            kind: Kind::Place,
            ..Self::new(text.to_owned(), (0, 0))
        }
    }
}

/// One member of a set.
enum Member {
    One(char),
    /// Such as `\d`.
    Class(char),
}

struct Reader {
    letters: Vec<char>,
    at: usize,
    /// The width of every group from the first on; `None` while it is open.
    groups: Vec<Option<Width>>,
    names: HashMap<String, usize>,
    /// Groups within each other here, and how many of them look behind.
    depth: usize,
    behind: usize,
    /// Capitals and small letters are the same here.
    any_case: bool,
}

/// The same expression for `fancy_regex`.
///
/// # Errors
/// What Python refuses, and what cannot be said.
pub(super) fn translated(pattern: &str) -> Result<String, Fault> {
    let mut reader = Reader {
        letters: pattern.chars().collect(),
        at: 0,
        groups: Vec::new(),
        names: HashMap::new(),
        depth: 0,
        behind: 0,
        any_case: false,
    };
    let (text, _) = reader.alternatives()?;
    match reader.next() {
        None => Ok(text),
        Some(_) => Err(reader.refused("unbalanced parenthesis")),
    }
}

impl Reader {
    fn next(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.next()?;
        self.at += 1;
        Some(next)
    }

    fn takes(&mut self, wanted: char) -> bool {
        let found = self.next() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    /// Up to `most` letters of a kind.
    fn take_while(&mut self, most: usize, kind: impl Fn(char) -> bool) -> String {
        let rest = &self.letters[self.at..];
        let found: String = rest
            .iter()
            .take(most)
            .take_while(|&&one| kind(one))
            .collect();
        self.at += found.chars().count();
        found
    }

    /// Python refuses it.
    fn refused(&self, problem: &str) -> Fault {
        Fault {
            problem: problem.to_owned(),
            place: self.at,
            remedy: CORRECT,
        }
    }

    fn not_here(&self, problem: &str, remedy: &'static str) -> Fault {
        Fault {
            problem: format!("{problem} is not read here"),
            place: self.at,
            remedy,
        }
    }

    fn alternatives(&mut self) -> Result<(String, Width), Fault> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.not_here("so many groups within each other", "write fewer"));
        }
        let (mut text, mut width) = self.sequence()?;
        while self.takes('|') {
            let (next, (least, most)) = self.sequence()?;
            text = format!("{text}|{next}");
            width = (width.0.min(least), width.1.max(most));
        }
        self.depth -= 1;
        Ok((text, width))
    }

    fn sequence(&mut self) -> Result<(String, Width), Fault> {
        let mut items: Vec<Item> = Vec::new();
        while let Some(next) = self.next().filter(|next| !"|)".contains(*next)) {
            self.at += 1;
            let item = match next {
                '\\' => self.escape()?,
                '[' => self.set()?,
                '(' => match self.group()? {
                    Some(item) => item,
                    None => continue,
                },
                '.' => Item::new(".".into(), (1, 1)),
                '^' | '$' => Item::place(if next == '^' { "^" } else { "$" }),
                '?' | '*' | '+' | '{' => match self.times(next)? {
                    Some(times) => self.repeated(items.pop(), times)?,
                    None => self.one(next)?,
                },
                other => self.one(other)?,
            };
            items.push(item);
        }
        let sum = |width: Width, item: &Item| {
            (
                width.0.saturating_add(item.width.0),
                width.1.saturating_add(item.width.1),
            )
        };
        let width = items.iter().fold((0, 0), sum);
        Ok((items.into_iter().map(|item| item.text).collect(), width))
    }

    /// A letter that stands for itself.
    fn one(&self, letter: char) -> Result<Item, Fault> {
        Ok(Item::new(self.literal(letter)?, (1, 1)))
    }

    fn literal(&self, letter: char) -> Result<String, Fault> {
        if self.any_case && !letter.is_ascii() {
            return Err(self.not_here(
                "a letter beyond ASCII under `(?i:`",
                "write both its forms as a set, outside of `(?i:`",
            ));
        }
        Ok(match letter {
            plain if plain.is_ascii_alphanumeric() => plain.to_string(),
            other => format!(r"\x{{{:x}}}", u32::from(other)),
        })
    }

    /// How often what stands before is repeated; `None` for a brace that stands for itself.
    fn times(&mut self, sign: char) -> Result<Option<Width>, Fault> {
        Ok(Some(match sign {
            '?' => (0, 1),
            '*' => (0, u64::MAX),
            '+' => (1, u64::MAX),
            _ => {
                let begin = self.at;
                let digits = |one: char| one.is_ascii_digit();
                let least = self.take_while(usize::MAX, digits);
                let comma = self.takes(',');
                let most = match comma {
                    true => self.take_while(usize::MAX, digits),
                    false => least.clone(),
                };
                if !self.takes('}') || (!comma && least.is_empty()) {
                    self.at = begin;
                    return Ok(None);
                }
                let number = |text: &str, none| match text {
                    "" => Ok(none),
                    text => text.parse::<u32>().map(u64::from).map_err(|_| ()),
                };
                let (Ok(least), Ok(most)) = (number(&least, 0), number(&most, u64::MAX)) else {
                    return Err(self.refused("the number of repetitions is too large"));
                };
                if most < least {
                    return Err(self.refused("the least number of repetitions is above the most"));
                }
                (least, most)
            }
        }))
    }

    fn repeated(&mut self, item: Option<Item>, (least, most): Width) -> Result<Item, Fault> {
        let item = match item {
            Some(item) if item.kind == Kind::Plain => item,
            Some(item) if item.kind == Kind::Repeated => {
                return Err(self.refused("a repetition is repeated"));
            }
            _ => return Err(self.refused("there is nothing to repeat")),
        };
        let (lazy, all) = (self.takes('?'), &item.text);
        let possessive = !lazy && self.takes('+');
        let text = match (least, most) {
            // What takes nothing holds once as often as many times, and is not repeated by `fancy_regex`.
            _ if item.width.1 == 0 => match (least, lazy) {
                (0, true) => format!("(?:|{all})"),
                (0, false) => format!("(?:{all}|)"),
                _ => format!("(?:{all})"),
            },
            (least, u64::MAX) => format!("(?:{all}){{{least},}}"),
            (least, most) => format!("(?:{all}){{{least},{most}}}"),
        };
        let text = match (lazy, possessive) {
            (true, _) if item.width.1 > 0 => format!("{text}?"),
            (_, true) => format!("(?>{text})"),
            _ => text,
        };
        Ok(Item {
            text,
            width: (
                item.width.0.saturating_mul(least),
                item.width.1.saturating_mul(most),
            ),
            kind: Kind::Repeated,
        })
    }

    /// Behind `(`. Nothing of a comment.
    fn group(&mut self) -> Result<Option<Item>, Fault> {
        if !self.takes('?') {
            return self.captured(None).map(Some);
        }
        let sign = self.take();
        Ok(Some(match sign {
            Some('P') => return self.named().map(Some),
            Some(':') => self.within("(?:")?,
            Some('>') => self.within("(?>")?,
            Some('#') => {
                while self
                    .take()
                    .ok_or_else(|| self.refused("a comment has no end"))?
                    != ')'
                {}
                return Ok(None);
            }
            Some('=') => self.looking("(?=")?,
            Some('!') => self.looking("(?!")?,
            Some('<') => match self.take() {
                Some('=') => self.looking_behind("(?<=")?,
                Some('!') => self.looking_behind("(?<!")?,
                _ => {
                    return Err(Fault {
                        problem: "Python's re has no `(?<name>...)`".into(),
                        place: self.at,
                        remedy: "write `(?P<name>...)`",
                    });
                }
            },
            Some('(') => {
                return Err(self.not_here(
                    "a condition, `(?(1)...|...)`,",
                    "write the cases one by one, as `(?:...|...)`",
                ));
            }
            Some(flag) if "aiLmsux-".contains(flag) => {
                self.at -= 1;
                self.flagged()?
            }
            Some(other) => {
                return Err(self.refused(&format!("Python's re has no `(?{other}`")));
            }
            None => return Err(self.refused("a group has no end")),
        }))
    }

    /// The rest of a group.
    fn within(&mut self, begin: &str) -> Result<Item, Fault> {
        let (text, width) = self.alternatives()?;
        match self.takes(')') {
            true => Ok(Item::new(format!("{begin}{text})"), width)),
            false => Err(self.refused("a group has no end")),
        }
    }

    fn looking(&mut self, begin: &str) -> Result<Item, Fault> {
        let item = self.within(begin)?;
        Ok(Item::new(item.text, (0, 0)))
    }

    fn looking_behind(&mut self, begin: &str) -> Result<Item, Fault> {
        self.behind += 1;
        let item = self.within(begin)?;
        self.behind -= 1;
        match item.width.0 == item.width.1 {
            true => Ok(Item::new(item.text, (0, 0))),
            false => Err(self.refused("what looks behind must have one width")),
        }
    }

    fn captured(&mut self, name: Option<String>) -> Result<Item, Fault> {
        self.groups.push(None);
        let number = self.groups.len();
        if let Some(name) = name
            && self.names.insert(name, number).is_some()
        {
            return Err(self.refused("two groups have one name"));
        }
        let item = self.within("(")?;
        self.groups[number - 1] = Some(item.width);
        Ok(item)
    }

    /// Behind `(?P`.
    fn named(&mut self) -> Result<Item, Fault> {
        let sign = self.take();
        let end = match sign {
            Some('<') => '>',
            Some('=') => ')',
            _ => return Err(self.refused("Python's re has `(?P<` and `(?P=` alone")),
        };
        let name = self.take_while(usize::MAX, |one| one != end && one != ')');
        let mut letters = name.chars();
        let begins = |one: char| one == '_' || one.is_ascii_alphabetic();
        if !letters.next().is_some_and(begins)
            || !letters.all(|one| begins(one) || one.is_ascii_digit())
        {
            return Err(self.not_here(
                "this name of a group",
                "write a name of ASCII letters, digits and _ that begins with no digit",
            ));
        }
        if !self.takes(end) {
            return Err(self.refused("the name of a group has no end"));
        }
        if sign == Some('<') {
            return self.captured(Some(name));
        }
        match self.names.get(&name) {
            Some(&number) => self.reference(number),
            None => Err(self.refused(&format!("there is no group {name:?}"))),
        }
    }

    /// What a group has matched.
    fn reference(&self, number: usize) -> Result<Item, Fault> {
        if self.behind > 0 {
            return Err(self.not_here(
                "a reference to a group where it looks behind",
                "write what it stands for",
            ));
        }
        match self.groups.get(number - 1) {
            Some(Some(width)) => Ok(Item::new(format!(r"(?:\{number})"), *width)),
            Some(None) => Err(self.refused("a group is referred to from within")),
            None => Err(self.refused(&format!("there is no group {number}"))),
        }
    }

    /// Behind `(?` where letters follow.
    fn flagged(&mut self) -> Result<Item, Fault> {
        let letter = |one: char| one.is_ascii_alphabetic();
        let on = self.take_while(usize::MAX, letter);
        let minus = self.takes('-');
        let off = match minus {
            true => self.take_while(usize::MAX, letter),
            false => String::new(),
        };
        if !minus && self.takes(')') {
            return Err(Fault {
                problem: format!(
                    "Python's re reads `(?{on})` at the very start alone, before which PEFT puts its own"
                ),
                place: self.at,
                remedy: "write `(?i:...)` around the pattern in place of `(?i)`, and so with other flags",
            });
        }
        let wrong = !self.takes(':')
            || minus && off.is_empty()
            || !on.chars().all(|one| "aimsux".contains(one))
            || !off.chars().all(|one| "imsx".contains(one))
            || on.contains('a') && on.contains('u')
            || on.chars().any(|one| off.contains(one));
        if wrong {
            return Err(self.refused("these flags of a group do not go together, or are none"));
        }
        if on.contains('x') {
            return Err(self.not_here(
                "the flag x",
                "write the pattern without it, and without spaces and comments",
            ));
        }
        // The others make no difference in a name of one line in ASCII.
        let before = self.any_case;
        self.any_case = (before || on.contains('i')) && !off.contains('i');
        let begin = if self.any_case { "(?i:" } else { "(?-i:" };
        let item = self.within(begin);
        self.any_case = before;
        item
    }

    /// Behind a backslash, outside of a set.
    fn escape(&mut self) -> Result<Item, Fault> {
        match self.next() {
            Some(place @ ('A' | 'b' | 'B')) => {
                self.at += 1;
                Ok(Item::place(&format!(r"\{place}")))
            }
            Some('Z') => {
                self.at += 1;
                Ok(Item::place(r"\z"))
            }
            Some(digit @ '1'..='9') => {
                let rest = &self.letters[self.at..];
                let octal = |one: &char| ('0'..='7').contains(one);
                if rest.len() > 2 && rest[..3].iter().all(octal) {
                    let letter = self.octal()?;
                    return self.one(letter);
                }
                self.at += 1;
                let second = self.take_while(1, |one| one.is_ascii_digit());
                let number = format!("{digit}{second}");
                self.reference(number.parse().expect("digits"))
            }
            _ => match self.member()? {
                Member::One(letter) => self.one(letter),
                Member::Class(class) => Ok(Item::new(format!(r"\{class}"), (1, 1))),
            },
        }
    }

    /// Up to three digits.
    fn octal(&mut self) -> Result<char, Fault> {
        let digits = self.take_while(3, |one| ('0'..='7').contains(&one));
        let code = u8::from_str_radix(&digits, 8);
        code.map(char::from)
            .map_err(|_| self.refused(r"an octal number is above \377"))
    }

    /// Behind a backslash: what means the same in a set and outside.
    fn member(&mut self) -> Result<Member, Fault> {
        let next = self.take();
        let next = next.ok_or_else(|| self.refused("a backslash has nothing behind it"))?;
        Ok(Member::One(match next {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => return Ok(Member::Class(next)),
            'a' => '\u{7}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => self.code(2)?,
            'u' => self.code(4)?,
            'U' => self.code(8)?,
            'N' => {
                return Err(self.not_here(
                    r"`\N{...}`, a letter by its name,",
                    r"write the letter itself, or its number as `\x2e`",
                ));
            }
            '0' => {
                self.at -= 1;
                self.octal()?
            }
            other if other.is_ascii_alphanumeric() => {
                return Err(Fault {
                    problem: format!(r"`\{other}`, which Python's re does not have"),
                    place: self.at - 1,
                    remedy: CORRECT,
                });
            }
            other => other,
        }))
    }

    /// A letter by its number.
    fn code(&mut self, digits: usize) -> Result<char, Fault> {
        let found = self.take_while(digits, |one| one.is_ascii_hexdigit());
        if found.len() < digits {
            return Err(self.refused(&format!("the number of a letter needs {digits} digits")));
        }
        let code = u32::from_str_radix(&found, 16).ok();
        if code.is_some_and(|code| (0xd800..0xe000).contains(&code)) {
            return Err(self.not_here(
                "a half of a letter of UTF-16",
                "leave it out: no name has it",
            ));
        }
        code.and_then(char::from_u32)
            .ok_or_else(|| self.refused("a number is no letter's"))
    }

    /// Behind `[`.
    fn set(&mut self) -> Result<Item, Fault> {
        let mut text = String::from(if self.takes('^') { "[^" } else { "[" });
        let mut first = true;
        loop {
            if !first && self.takes(']') {
                break;
            }
            first = false;
            let low = self.in_set()?;
            // A minus before the end stands for itself.
            let ends = self.letters.get(self.at + 1) == Some(&']');
            if self.next() != Some('-') || ends {
                match low {
                    Member::One(letter) => text += &self.literal(letter)?,
                    Member::Class(class) => _ = write!(text, r"\{class}"),
                }
                continue;
            }
            self.at += 1;
            let (Member::One(low), Member::One(high)) = (low, self.in_set()?) else {
                return Err(self.refused("a range has an end that is no letter"));
            };
            if high < low {
                return Err(self.refused("a range ends before it begins"));
            }
            _ = write!(text, "{}-{}", self.literal(low)?, self.literal(high)?);
        }
        Ok(Item::new(text + "]", (1, 1)))
    }

    fn in_set(&mut self) -> Result<Member, Fault> {
        match self.take() {
            None => Err(self.refused("a set has no end")),
            Some('\\') => match self.next() {
                Some('b') => {
                    self.at += 1;
                    Ok(Member::One('\u{8}'))
                }
                Some('1'..='7') => self.octal().map(Member::One),
                _ => self.member(),
            },
            Some(letter) => Ok(Member::One(letter)),
        }
    }
}
