//! Deliberate faults, by which the proof is proved: each switches one guard off, and the simulation has to notice.
//!
//! A test that passes over a job that is broken on purpose proves nothing. In a build with debug assertions one fault at a time can
//! be switched on for the thread; in any other build [`on`] is `false` at compile time and nothing of this is left in the binary.

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $bug:ident $name:literal)+) => {
        /// One deliberate fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Bug {
            $($(#[doc = $doc])+ $bug,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug),+];

            /// Its name on the command line: `checkpoint-before-effect`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)+
                }
            }
        }
    };
}

bugs! {
    /// A checkpoint covers rows whose calls have not been answered yet.
    CheckpointBeforeEffect "checkpoint-before-effect"
}

#[cfg(debug_assertions)]
std::thread_local! {
    static ACTIVE: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this fault is switched on for this thread. Always `false` in a build without debug assertions.
#[inline]
pub fn on(bug: Bug) -> bool {
    #[cfg(debug_assertions)]
    {
        ACTIVE.get() == Some(bug)
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = bug;
        false
    }
}

/// Switches one fault on for this thread, or all off. Without debug assertions it does nothing and answers `false`.
pub fn switch(bug: Option<Bug>) -> bool {
    #[cfg(debug_assertions)]
    {
        ACTIVE.set(bug);
        true
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = bug;
        false
    }
}
