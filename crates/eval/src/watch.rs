//! Whom a long measurement tells how far it is.

/// Hears what goes on.
pub trait Watch {
    /// A task of `steps` steps began; it is over when what is returned goes.
    fn task(&self, title: &str, steps: usize, unit: &'static str) -> Box<dyn Task>;

    /// Something may not be what was meant.
    fn warn(&self, text: &str);
}

/// A task that goes on.
pub trait Task {
    /// So many steps are done, of all.
    fn reach(&self, done: u64);

    /// So many more steps are done.
    fn advance(&self, steps: u64);
}

/// Nobody.
pub struct Nobody;

impl Watch for Nobody {
    fn task(&self, _title: &str, _steps: usize, _unit: &'static str) -> Box<dyn Task> {
        Box::new(Self)
    }

    fn warn(&self, _text: &str) {}
}

impl Task for Nobody {
    fn reach(&self, _done: u64) {}

    fn advance(&self, _steps: u64) {}
}
