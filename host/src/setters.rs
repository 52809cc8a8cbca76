//! Settings are set one by one, so that there can be more of them in a later version.

/// For each field that is named, a method of that name that sets it.
macro_rules! setters {
    ($settings:ident { $($field:ident: $type:ty),* $(,)? }) => {
        impl $settings {
            $(
                #[doc = concat!("Sets [`", stringify!($settings), "::", stringify!($field), "`](#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> $settings {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}

pub(crate) use setters;
