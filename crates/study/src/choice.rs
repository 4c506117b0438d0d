//! Values that are chosen by name.

/// One of a few named values.
pub trait Choice: Copy + Sized + 'static {
    /// All of them, in the order in which they are listed.
    const ALL: &'static [Self];

    /// As it is typed.
    fn name(self) -> &'static str;

    /// What it is, in a line.
    fn help(self) -> Option<&'static str> {
        None
    }

    /// The one with this name.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.name() == name)
    }
}
