//! Whether two refusals say the same.

/// What is left of a server's words without what differs between operations: words with a digit in
/// them (numbers, UUIDs, request ids), and what stands in quotes. Two refusals with one fingerprint
/// have one cause.
pub fn fingerprint(words: &str) -> String {
    let mut left = String::new();
    let mut word = String::new();
    let mut quote = None;
    let end = |word: &mut String, left: &mut String| {
        if word.bytes().any(|byte| byte.is_ascii_digit()) {
            left.push('#');
        } else {
            left.push_str(word);
        }
        word.clear();
    };
    for character in words.chars() {
        match (quote, character) {
            (Some(open), _) if character == open => {
                quote = None;
                left.push('…');
            }
            (Some(_), _) => {}
            (None, '"' | '`') => {
                end(&mut word, &mut left);
                quote = Some(character);
            }
            (None, _) if character.is_alphanumeric() || matches!(character, '-' | '_') => {
                word.extend(character.to_lowercase());
            }
            (None, _) => {
                end(&mut word, &mut left);
                left.push(character);
            }
        }
    }
    end(&mut word, &mut left);
    left
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn what_differs_between_operations_does_not_count() {
        for (one, other) in [
            (
                "Wrong input: point 7 of `a` is bad",
                "Wrong input: point 1234 of `bcd` is bad",
            ),
            (
                "point 550e8400-e29b-41d4-a716-446655440000 is bad",
                "point 6ba7b810-9dad-11d1-80b4-00c04fd430c8 is bad",
            ),
        ] {
            assert_eq!(fingerprint(one), fingerprint(other));
        }
        assert_ne!(
            fingerprint("Wrong input: Shard key not specified"),
            fingerprint("Wrong input: Vector dimension error")
        );
        assert_eq!(fingerprint("a \"never closed"), "a ");
    }
}
