//! The kinds of fault that chaos does, from a table: name, word, how often beside the others, and for how long in milliseconds.

/// Makes `enum Fault` of such a table.
#[macro_export]
macro_rules! faults {
    ($($name:ident $word:literal $weight:literal $least:literal $most:literal;)*) => {
        /// What is done to a world.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $($name),* }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Fault] = &[$(Fault::$name),*];

            /// Its name.
            pub fn as_str(self) -> &'static str {
                match self { $(Fault::$name => $word),* }
            }

            /// How often it comes, beside the others.
            fn weight(self) -> usize {
                match self { $(Fault::$name => $weight),* }
            }

            /// How long it lasts, in milliseconds.
            fn lasts(self) -> (u64, u64) {
                match self { $(Fault::$name => ($least, $most)),* }
            }
        }
    };
}
