//! Who may give orders over the agent's socket: takes the asker's user as the kernel says it, and the users of
//! the configuration; gives the name for the audit, or a refusal with what to do. Pure but for the reading
//! of `/etc/passwd`. Whoever may connect may ask; orders are for root, for the agent's own user, and for
//! those that `[socket] operators` names.

/// Bytes of `/etc/passwd` that are read.
const PASSWD_BYTES_MAX: usize = 1 << 20;

/// The users of this host, as far as a file says.
#[must_use]
pub fn passwd() -> String {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    if text.len() <= PASSWD_BYTES_MAX { text } else { String::new() }
}

/// Whether the user `uid` may give orders; the name for the audit.
///
/// # Errors
/// When not: what to do instead.
pub fn may_order(uid: u32, own: u32, operators: &[String], passwd: &str) -> Result<String, String> {
    let name = name_of(uid, passwd);
    let by = name.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"));
    let named = |operator: &String| Some(operator.as_str()) == name || *operator == uid.to_string();
    if uid == 0 || uid == own || operators.iter().any(named) {
        return Ok(by);
    }
    let whom = name.map_or_else(|| uid.to_string(), str::to_owned);
    Err(format!(
        "{by} may not give orders; use sudo, or name `{whom}` in [socket] operators and reload the agent"
    ))
}

fn name_of(uid: u32, passwd: &str) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == uid).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000::/home/alice:/bin/sh\n";

    #[test]
    fn orders_are_for_root_the_agents_user_and_those_that_are_named() {
        let may = |uid, operators: &[&str]| {
            may_order(uid, 990, &operators.iter().map(ToString::to_string).collect::<Vec<_>>(), PASSWD)
        };
        assert_eq!(may(0, &[]), Ok("root (uid 0)".into()));
        assert_eq!(may(990, &[]), Ok("uid 990".into()));
        assert_eq!(may(1000, &["alice"]), Ok("alice (uid 1000)".into()));
        assert_eq!(may(1000, &["1000"]), Ok("alice (uid 1000)".into()));
        let refused = may(1000, &["root", "bob", "0", "100"]).unwrap_err();
        assert!(refused.contains("name `alice` in [socket] operators"), "{refused}");
    }
}
