//! How long a process has run on CPUs.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// `USER_HZ`, the unit of the times in `/proc`: the same on every architecture that we build for.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of all threads of a process since its start, of those that have ended too. In steps of 10 ms.
pub fn of_process(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    parse(&stat).with_context(|| path)
}

/// `utime` and `stime` of proc_pid_stat(5), fields 14 and 15. The second field, the name, may have spaces and parentheses.
fn parse(stat: &str) -> Result<Duration> {
    let (_, after_name) = stat.rsplit_once(')').context("no name")?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || -> Result<u64> { Ok(fields.next().context("a field is missing")?.parse()?) };
    let sum = ticks()? + ticks()?;
    Ok(Duration::from_millis(sum * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;

    #[test]
    fn user_and_system_time_are_added_whatever_the_name_is() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 99 98 97 96 123 45 11 12 20 0 5 0 1000";
        assert_eq!(parse(stat).unwrap(), Duration::from_millis(1680));
        assert!(parse("7 (a) S 1 2").is_err());
    }

    #[test]
    fn times_of_proc_have_the_unit_that_the_kernel_says() {
        let ticks = process::run("getconf", &["CLK_TCK"]).unwrap();
        assert_eq!(ticks.trim().parse::<u64>().unwrap(), TICKS_PER_SECOND);
    }
}
