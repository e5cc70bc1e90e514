//! Values of environment variables, as the chart and its users write them.

use std::str::FromStr;
use std::time::Duration;

/// A value without the blanks around it.
pub fn trimmed<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|error: T::Err| error.to_string())
}

/// A text that must not be empty.
pub fn required(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it must not be empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// The spellings that the chart and its users write.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.trim() {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" | "" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

/// Whole seconds, at least one.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let text = text.trim().trim_end_matches('s');
    let seconds: u64 = text.parse().map_err(|_| "it must be a number of seconds".to_owned())?;
    if seconds == 0 { Err("it must be at least 1".to_owned()) } else { Ok(Duration::from_secs(seconds)) }
}

/// Whole seconds; 0 is allowed.
pub fn any_seconds(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" { Ok(Duration::ZERO) } else { seconds(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_whole_and_at_least_one() {
        assert_eq!(seconds(" 600 "), Ok(Duration::from_mins(10)));
        assert_eq!(seconds("5s"), Ok(Duration::from_secs(5)));
        assert!(seconds("0").is_err() && seconds("-1").is_err() && seconds("").is_err());
        assert_eq!(any_seconds("0"), Ok(Duration::ZERO));
    }
}
