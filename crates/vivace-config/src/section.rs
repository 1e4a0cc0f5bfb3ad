//! The macros that declare the configuration. A list of keys becomes the struct, its defaults, its reader, its YAML and its part
//! of the reference page, so that none of them can lack a key.

/// Declares one block of the configuration: its struct, its defaults, and how it is read and shown.
///
/// Each field has a mark, which is its `Effect`: `used`, `idle` (accepted; one warning says that it changes nothing), `always` (what
/// it switches on is always on) or `refused` (for what must not be ignored: where it is set, the process does not start).
/// All but `used` fields are deprecated for other crates, so that clippy names the code that gives one of them an effect.
/// `renamed` lists old spellings of a field, `dropped` old keys that are accepted with a warning, and why.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ $mark:ident $field:ident $(as $key:literal)? : $type:ty = $default:expr; )*
        }
        $( renamed { $( $old:literal => $new:ident; )* } )?
        $( dropped { $( $gone:literal: $why:literal; )* } )?
    ) => {
        section! { @struct [$(#[doc = $about])+ $name] [] $( [$(#[doc = $doc])+] $mark $field: $type; )* }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $crate::value::Value for $name {
            fn read(&mut self, node: &$crate::node::Node, reader: &mut $crate::reader::Reader) {
                let known: &[&'static str] = &[$( section!(@key $field $($key)?) ),*];
                for entry in reader.entries(node, known) {
                    match entry.key.as_str() {
                        $( section!(@key $field $($key)?) => reader.field(&entry, section!(@mark $mark), &mut self.$field), )*
                        $( $( $old => {
                            if let Some((effect, value)) = self.child(stringify!($new)) {
                                reader.renamed(&entry, stringify!($new), effect, value);
                            }
                        } )* )?
                        $( $( $gone => reader.dropped(&entry, $why), )* )?
                        _ => reader.unknown(&entry, known),
                    }
                }
            }

            fn child(&mut self, key: &str) -> Option<($crate::value::Effect, &mut dyn $crate::value::Value)> {
                match key {
                    $( section!(@key $field $($key)?) => Some((section!(@mark $mark), &mut self.$field)), )*
                    _ => None,
                }
            }

            fn write(&self) -> serde_yaml::Value {
                $crate::value::write_fields(self)
            }

            fn fields(&self) -> Vec<$crate::value::Field<'_>> {
                vec![$( $crate::value::Field {
                    key: section!(@key $field $($key)?),
                    doc: concat!($($doc),+),
                    effect: section!(@mark $mark),
                    value: &self.$field,
                } ),*]
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    (@mark used) => { $crate::value::Effect::Used };
    (@mark idle) => { $crate::value::Effect::Idle };
    (@mark always) => { $crate::value::Effect::Always };
    (@mark refused) => { $crate::value::Effect::Refused };
    // The fields one by one, as a macro cannot stand where a visibility does.
    (@struct [$($head:tt)+] [$($done:tt)*] [$($doc:tt)+] used $field:ident: $type:ty; $($rest:tt)*) => {
        section! { @struct [$($head)+] [$($done)* $($doc)+ pub $field: $type,] $($rest)* }
    };
    (@struct [$($head:tt)+] [$($done:tt)*] [$($doc:tt)+] $mark:ident $field:ident: $type:ty; $($rest:tt)*) => {
        section! { @struct [$($head)+] [$($done)* $($doc)+ #[deprecated = "it has no effect, says its mark in vivace-config"] pub $field: $type,] $($rest)* }
    };
    (@struct [$(#[doc = $about:literal])+ $name:ident] [$($fields:tt)*]) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($fields)* }
    };
}

/// Declares a closed set of words as an enum. The first one is the default.
macro_rules! choice {
    (
        $(#[doc = $about:literal])+
        pub enum $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $text:literal $(| $alias:literal)*; )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[doc = $doc])+ $variant, )+ }

        impl $name {
            const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// The word as it is written in the file.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )+ }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::value::Value for $name {
            fn read(&mut self, node: &$crate::node::Node, reader: &mut $crate::reader::Reader) {
                let Some(text) = reader.text(node) else { return };
                match text {
                    $( $text $(| $alias)* => *self = Self::$variant, )+
                    other => {
                        let words: Vec<&str> = Self::ALL.iter().map(|word| word.as_str()).collect();
                        reader.not_one_of(node, other, &words);
                    }
                }
            }

            fn write(&self) -> serde_yaml::Value {
                self.as_str().into()
            }
        }
    };
}

pub(crate) use {choice, section};
