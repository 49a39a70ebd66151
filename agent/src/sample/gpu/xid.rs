//! What an XID calls for. Takes its code, the codes beside it and what the driver itself wants; gives an
//! action. Pure: the table is data (`agent/assets/xid.toml`), under what the configuration says otherwise.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use diarwatch_shared::config;
use diarwatch_shared::event::{RecoveryAction, XidAction};
use serde::Deserialize;

/// The shipped table.
const SHIPPED: &str = include_str!("../../../assets/xid.toml");
/// "GPU recovery action changed": the driver says itself what it wants.
pub const XID_RECOVERY_ACTION: u32 = 154;

/// XIDs of which something is known.
#[derive(Clone, Debug, Default)]
pub struct Table {
    version: String,
    actions: BTreeMap<u32, XidAction>,
    follows: BTreeMap<u32, XidAction>,
    names: BTreeMap<u32, String>,
    overrides: BTreeMap<u32, XidAction>,
}

/// The table's text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: String,
    #[expect(dead_code, reason = "for who reads the file")]
    source: String,
    actions: BTreeMap<String, Vec<u32>>,
    follows: BTreeMap<String, String>,
    names: BTreeMap<String, String>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(SHIPPED).unwrap_or_default());

impl Table {
    /// The shipped table with what a configuration says otherwise; entries of it that say nothing were
    /// refused with the configuration.
    #[must_use]
    pub fn shipped(overrides: &BTreeMap<String, String>) -> Self {
        let overrides = overrides.iter().filter_map(|(code, word)| read(code, word).ok()).collect();
        Self { overrides, ..TABLE.clone() }
    }

    /// The day of the catalogue that the table was made from.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What people call a code.
    #[must_use]
    pub fn name(&self, code: u32) -> &str {
        self.names.get(&code).map_or("", String::as_str)
    }

    /// What an XID calls for, with the codes that came on the same GPU shortly before, and what the driver
    /// wants now, where it says so. An override of the configuration wins over all, the driver over the table.
    #[must_use]
    pub fn action(&self, code: u32, companions: &[u32], recovery: Option<RecoveryAction>) -> XidAction {
        if let Some(action) = self.overrides.get(&code) {
            return *action;
        }
        let listed = self.listed(code, companions);
        match recovery {
            Some(RecoveryAction::GpuReset | RecoveryAction::DrainAndReset) => XidAction::ResetGpu,
            Some(RecoveryAction::NodeReboot) => XidAction::Reboot,
            Some(RecoveryAction::DrainP2p | RecoveryAction::Other) => listed.max(XidAction::Watch),
            // The GPU is well: what is left is the program that it hit.
            Some(RecoveryAction::None) if listed > XidAction::RestartWorker => XidAction::RestartWorker,
            Some(RecoveryAction::None) if code == XID_RECOVERY_ACTION => XidAction::Ignore,
            Some(RecoveryAction::None) | None => listed,
        }
    }

    fn listed(&self, code: u32, companions: &[u32]) -> XidAction {
        let of = |code: &u32| {
            self.overrides.get(code).or_else(|| self.actions.get(code)).copied().unwrap_or(XidAction::Unknown)
        };
        let Some(alone) = self.follows.get(&code) else { return of(&code) };
        let others = companions.iter().filter(|other| !self.follows.contains_key(other)).map(of);
        others.filter(|action| *action > XidAction::Watch).max().unwrap_or(*alone)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text: Text = config::parse(Path::new("xid.toml"), text)
            .map_err(|error: config::ConfigError| error.to_string())?;
        let mut actions = BTreeMap::new();
        for (word, codes) in &text.actions {
            let action = XidAction::named(word).ok_or_else(|| format!("`{word}` is no action"))?;
            for code in codes {
                if actions.insert(*code, action).is_some() {
                    return Err(format!("{code} has two actions"));
                }
            }
        }
        let follows = text.follows.iter().map(|(code, word)| read(code, word)).collect::<Result<_, _>>()?;
        let name = |(code, name): (&String, &String)| Ok((number(code)?, name.clone()));
        let names = text.names.iter().map(name).collect::<Result<_, String>>()?;
        Ok(Self { version: text.version, actions, follows, names, overrides: BTreeMap::new() })
    }
}

/// An entry of `xid_overrides`.
///
/// # Errors
/// Why it says nothing, for a person.
pub fn read(code: &str, word: &str) -> Result<(u32, XidAction), String> {
    let action = XidAction::named(word).ok_or_else(|| format!("`{word}` is no action"))?;
    Ok((number(code)?, action))
}

fn number(code: &str) -> Result<u32, String> {
    code.parse().map_err(|_| format!("`{code}` is no XID"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use RecoveryAction as Recovery;
    use XidAction as Action;
    use proptest::prelude::*;

    fn shipped() -> Table {
        Table::shipped(&BTreeMap::new())
    }

    #[test]
    fn the_shipped_table_is_whole_and_says_its_version() {
        let table = Table::parse(SHIPPED).unwrap();
        assert_eq!(table.version(), "2025-10-29");
        let count = |action: Action| table.actions.values().filter(|listed| **listed == action).count();
        assert_eq!((count(Action::ResetGpu), count(Action::Reboot), count(Action::Ignore)), (14, 2, 19));
        assert_eq!(count(Action::RestartWorker), 48);
        assert_eq!(table.name(79), "GPU has fallen off the bus");
        assert_eq!(table.name(9_000), "");
    }

    #[test]
    fn what_a_code_calls_for_is_what_the_catalogue_says() {
        let table = shipped();
        for (code, action) in [
            (31, Action::RestartWorker),
            (94, Action::RestartWorker),
            (119, Action::ResetGpu),
            (79, Action::Reboot),
            (63, Action::Ignore),
            (48, Action::Workflow),
            (154, Action::Watch),
            (170, Action::Unknown),
        ] {
            assert_eq!(table.action(code, &[], None), action, "{code}");
        }
    }

    #[test]
    fn the_driver_wins_over_the_table() {
        let table = shipped();
        assert_eq!(table.action(31, &[], Some(Recovery::GpuReset)), Action::ResetGpu);
        assert_eq!(table.action(63, &[], Some(Recovery::NodeReboot)), Action::Reboot);
        assert_eq!(table.action(154, &[], Some(Recovery::DrainAndReset)), Action::ResetGpu);
        assert_eq!(table.action(154, &[], Some(Recovery::None)), Action::Ignore);
        // A GPU that is well leaves the program to be started anew, and an information one.
        assert_eq!(table.action(119, &[], Some(Recovery::None)), Action::RestartWorker);
        assert_eq!(table.action(63, &[], Some(Recovery::None)), Action::Ignore);
        assert_eq!(table.action(63, &[], Some(Recovery::DrainP2p)), Action::Watch);
    }

    #[test]
    fn a_code_that_only_follows_calls_for_what_its_companion_does() {
        let table = shipped();
        assert_eq!(table.action(45, &[], None), Action::RestartWorker);
        assert_eq!(table.action(45, &[45, 63], None), Action::RestartWorker);
        assert_eq!(table.action(45, &[63, 95, 31], None), Action::ResetGpu);
        assert_eq!(table.action(45, &[48], None), Action::Workflow);
    }

    #[test]
    fn the_configuration_wins_over_both() {
        let overrides = BTreeMap::from([("64".to_owned(), "isolate".to_owned())]);
        let table = Table::shipped(&overrides);
        assert_eq!(table.action(64, &[], Some(Recovery::None)), Action::Isolate);
        assert_eq!(table.action(45, &[64], None), Action::Isolate);
        assert_eq!(table.action(119, &[], None), Action::ResetGpu);
        assert!(read("64", "isolated").is_err() && read("x", "isolate").is_err());
    }

    #[test]
    fn a_table_that_contradicts_itself_is_refused() {
        let twice = SHIPPED.replace("reboot = [79, 151]", "reboot = [79, 31]");
        assert_eq!(Table::parse(&twice).unwrap_err(), "31 has two actions");
        assert!(Table::parse(&SHIPPED.replace("reboot =", "reboott =")).is_err());
    }

    proptest! {
        #[test]
        fn no_code_makes_a_gpu_that_is_well_want_a_reset(
            code: u32, companions in prop::collection::vec(0_u32..200, 0..8),
        ) {
            let action = shipped().action(code, &companions, Some(Recovery::None));
            prop_assert!(action <= Action::RestartWorker);
        }
    }
}
