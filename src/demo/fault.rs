//! What is broken in the make-believe shop, by whom and when.
//!
//! In: `--break`, the time, and whoever presses the page's button. Out: the part that does not work just now. One number is
//! all the state: the containers read it at every request, the button and the clock write it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How long everything works before it breaks by itself.
const AFTER: Duration = Duration::from_secs(15);

/// A service that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its carts cannot be read.
    Cart,
    /// Its calls to payments fail.
    Checkout,
    /// Its ledger is not reachable.
    Payments,
}

impl Part {
    /// Name of the service.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cart => "cart",
            Self::Checkout => "checkout",
            Self::Payments => "payments",
        }
    }
}

/// `--break`: what fails, from when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Break {
    /// Checkout, after 15 s; with `--for` after a quarter of it, if that is sooner.
    #[default]
    Auto,
    /// Checkout's calls to payments fail from the start.
    Checkout,
    /// Cart cannot read its carts, from the start; checkout fails with it.
    Cart,
    /// Payments cannot reach its ledger, from the start; checkout fails with it.
    Payments,
    /// Nothing fails until the page's button is pressed: the objectives hold.
    Never,
}

impl Break {
    /// What breaks, and how long after the start, in a demo of this length.
    pub fn plan(self, wanted: Option<Duration>) -> Option<(Part, Duration)> {
        let at_once = |part| Some((part, Duration::ZERO));
        match self {
            Self::Auto => Some((Part::Checkout, wanted.map_or(AFTER, |wanted| AFTER.min(wanted / 4)))),
            Self::Checkout => at_once(Part::Checkout),
            Self::Cart => at_once(Part::Cart),
            Self::Payments => at_once(Part::Payments),
            Self::Never => None,
        }
    }
}

/// What is broken just now; every copy is the same switch.
#[derive(Debug, Clone, Default)]
pub struct Switch(Arc<AtomicU8>);

impl Switch {
    /// What is broken; `None`: everything works.
    pub fn broken(&self) -> Option<Part> {
        match self.0.load(Ordering::Relaxed) {
            1 => Some(Part::Cart),
            2 => Some(Part::Checkout),
            3 => Some(Part::Payments),
            _ => None,
        }
    }

    /// Breaks a part, or mends all.
    pub fn set(&self, broken: Option<Part>) {
        let number = match broken {
            None => 0,
            Some(Part::Cart) => 1,
            Some(Part::Checkout) => 2,
            Some(Part::Payments) => 3,
        };
        self.0.store(number, Ordering::Relaxed);
    }

    /// Mends what is broken; breaks checkout where nothing is.
    pub fn toggle(&self) {
        self.set(if self.broken().is_some() { None } else { Some(Part::Checkout) });
    }

    /// What the button says that would do that.
    pub fn label(&self) -> String {
        match self.broken() {
            Some(part) => format!("mend {}", part.name()),
            None => "break checkout".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_itself_checkout_breaks_after_a_quarter_of_a_minute() {
        let of = |what: Break, seconds: Option<u64>| what.plan(seconds.map(Duration::from_secs));
        assert_eq!(of(Break::Auto, None), Some((Part::Checkout, Duration::from_secs(15))));
        assert_eq!(of(Break::Auto, Some(3_600)), Some((Part::Checkout, Duration::from_secs(15))));
        assert_eq!(of(Break::Auto, Some(20)), Some((Part::Checkout, Duration::from_secs(5))));
        assert_eq!(of(Break::Cart, Some(20)), Some((Part::Cart, Duration::ZERO)));
        assert_eq!(of(Break::Never, None), None);
    }

    #[test]
    fn the_button_mends_whatever_is_broken_and_else_breaks_checkout() {
        let switch = Switch::default();
        assert_eq!((switch.broken(), switch.label().as_str()), (None, "break checkout"));
        switch.clone().toggle();
        assert_eq!((switch.broken(), switch.label().as_str()), (Some(Part::Checkout), "mend checkout"));
        switch.set(Some(Part::Payments));
        assert_eq!(switch.label(), "mend payments");
        switch.toggle();
        assert_eq!(switch.broken(), None);
    }
}
