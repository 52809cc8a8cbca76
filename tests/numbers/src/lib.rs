//! Numbers as people read them in a report.

/// `1,797`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1,234`, or a dash.
pub fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| grouped(rate.round() as u64))
}

/// `0.41 s`.
pub fn seconds(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

/// `1.4 MB`.
pub fn bytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// `98.72 %`.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1797), "1,797");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(rate(None), "-");
        assert_eq!(rate(Some(1234.5)), "1,235");
        assert_eq!(percent(0.98776), "98.78 %");
    }
}
