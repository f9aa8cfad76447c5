//! The declaration of named counters: one line each gives the index in the page, the name, and the help text that
//! `/metrics` and `dwcp stats` show. Used by [`super::stats`] and [`super::node`].

/// What a figure does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterKind {
    /// Only grows while the dataplane lives.
    Total,
    /// Goes up and down.
    Level,
}

/// Declares an enumeration of counters whose discriminants are their positions in a page.
macro_rules! counters {
    ($(#[$meta:meta])* pub enum $name:ident {
        $(#[doc = $help:literal] $variant:ident = $index:literal, $text:literal, $kind:ident;)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum $name {
            $(#[doc = $help] $variant = $index,)*
        }

        impl $name {
            /// Every counter, in order of its position.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Position in the page.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }

            /// Name, in the form of a metric without prefix; the unit comes last.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// One sentence for a person.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => $help.trim_ascii(),)*
                }
            }

            /// What it does over time.
            #[must_use]
            pub const fn kind(self) -> $crate::shm::counters::CounterKind {
                match self {
                    $(Self::$variant => $crate::shm::counters::CounterKind::$kind,)*
                }
            }
        }
    };
}
pub(crate) use counters;
