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
    /// The errors in an answer that says 207 are not looked at.
    PartialSuccessIgnored "partial-success-ignored"
    /// Of rows with one key the first one counts.
    FirstRowWins "first-row-wins"
    /// An invocation that goes on with a run forgets its rejects.
    RejectsDroppedOnResume "rejects-dropped-on-resume"
    /// A create that nothing names is sent again after its answer was lost.
    CreateRepeated "create-repeated"
    /// Records with a key that is not unique are not looked for before they are created.
    AdoptionWithoutLook "adoption-without-look"
    /// A lease is believed to have been renewed, and was not.
    LeaseNotRenewed "lease-not-renewed"
    /// A lease is taken whether or not somebody holds it.
    LeaseTaken "lease-taken"
    /// Work goes on until the process is stopped.
    DeadlineIgnored "deadline-ignored"
    /// The day's calls are not counted.
    DayIgnored "day-ignored"
    /// A reservation of slots counts half in the account's common line.
    SlotsTwice "slots-twice"
    /// The byte order mark is taken for a part of the first header.
    MarkKept "mark-kept"
    /// A doubled quote within quotes stays doubled.
    QuotesKept "quotes-kept"
    /// The older of two events is taken for the newer one.
    SequencersReversed "sequencers-reversed"
    /// The run of a newer version writes while that of the older one does.
    OlderNotWaitedFor "older-not-waited-for"
    /// What was delivered is not remembered.
    IndexNotWritten "index-not-written"
    /// A run that yields leaves it to the sweep.
    ContinuationNotSent "continuation-not-sent"
    /// Before-images are read after the write.
    ImageAfterWrite "image-after-write"
    /// What a 429 asks for is not heeded.
    RetryAfterIgnored "retry-after-ignored"
    /// A token that was refused is not replaced.
    TokenNotReplaced "token-not-replaced"
    /// What an earlier invocation counted is counted again.
    CountsTwice "counts-twice"
    /// A blank cell clears the value that it should keep.
    BlankCellClears "blank-cell-clears"

    /// A capture's position covers rows before the object that holds them is written.
    PositionBeforeObject "position-before-object"
    /// A capture's window ends at HubSpot's clock: the index has not caught up.
    LagDropped "lag-dropped"
    /// What the index shows late is not looked for.
    TrailingSkipped "trailing-skipped"
    /// Records in the recycle bin are not told.
    ArchivedSkipped "archived-skipped"
    /// Who left the recycle bin is not looked up.
    ReturnedSkipped "returned-skipped"
    /// Records that were merged into others are not told.
    MergesSkipped "merges-skipped"
    /// A capture writes whether or not the lease is its own.
    LostFenceIgnored "lost-fence-ignored"
    /// Objects of one window have one name.
    PartForgotten "part-forgotten"
    /// A snapshot hands over at its end, not at its start.
    HandoverAtTheEnd "handover-at-the-end"
    /// What was learned is not saved with the position.
    LogForgotten "log-forgotten"

    /// What was written becomes the shadow before it is written.
    ShadowBeforeEffect "shadow-before-effect"
    /// What was read back does not become the shadow, and intents stay.
    ShadowNotWritten "shadow-not-written"
    /// HubSpot's changes are asked for from the beginning of the last run.
    IndexTrusted "index-trusted"
    /// A value goes to the side that changed it, not from there.
    MergeReversed "merge-reversed"
    /// A blank value takes another one away, whatever the rule says.
    BlankOverwrites "blank-overwrites"
    /// The limits of a run are not looked at.
    BrakeIgnored "brake-ignored"
    /// A conflict waits, and nobody is told.
    ReviewNotOpened "review-not-opened"
    /// The first of several that share an address is the one.
    LinkedToTheFirst "linked-to-the-first"
    /// A collection's failed records are taken for written.
    PartialIgnored "partial-ignored"
    /// HubSpot's recycle bin is not looked at.
    BinSkipped "bin-skipped"
    /// A sweep of Salesforce ends at our own clock.
    OwnClock "own-clock"
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
