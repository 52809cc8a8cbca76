//! Whether two refusals say the same.

/// What is left of a server's words without what differs between operations: digits, and what stands
/// in quotes. Two refusals with one fingerprint have one cause.
pub fn fingerprint(words: &str) -> String {
    let mut left = String::new();
    let mut quote = None;
    for character in words.chars() {
        match (quote, character) {
            (Some(open), _) if character == open => {
                quote = None;
                left.push('…');
            }
            (Some(_), _) => {}
            (None, '"' | '`') => quote = Some(character),
            (None, _) if character.is_ascii_digit() => {
                if !left.ends_with('#') {
                    left.push('#');
                }
            }
            (None, _) => left.extend(character.to_lowercase()),
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn what_differs_between_operations_does_not_count() {
        assert_eq!(
            fingerprint("Wrong input: point 7 of `a` is bad"),
            fingerprint("Wrong input: point 1234 of `bcd` is bad")
        );
        assert_ne!(
            fingerprint("Wrong input: Shard key not specified"),
            fingerprint("Wrong input: Vector dimension error")
        );
        assert_eq!(fingerprint("a \"never closed"), "a ");
    }
}
