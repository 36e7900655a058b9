//! Edits of `call`: commands of other packs.

use outhaul_host::power::call;
use outhaul_protocol::error::Failure;
use toml_edit::TableLike;

use super::{add, usage};

/// Whether commands may stand after `call`.
pub(super) fn check(commands: &[String], allowing: bool) -> Result<(), Failure> {
    if allowing && commands.is_empty() {
        return Err(usage("`call` is granted command by command: name at least one".into()).hint("such as: agent allow PACK call gpu.list"));
    }
    commands.iter().find_map(|command| call::Commands::parse(command).err()).map_or(Ok(()), |why| Err(usage(why)))
}

/// Adds commands. What a pack could do by them is more than their names say.
pub(super) fn allow(table: &mut dyn TableLike, commands: &[String], notes: &mut Vec<String>) {
    add(table, "call", commands);
    if commands.iter().any(|command| command == "*") {
        notes.push(
            "warning: `*` is every command of every pack, also of those that come later; each runs under its own pack's policy".into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{edit, name, words};
    use outhaul_host::Power;

    #[test]
    fn commands_are_granted_one_by_one() {
        let (_dir, mut edit) = edit("");
        let pack = name("flow");
        assert!(edit.allow(&pack, None, Power::Call, &words(&["gpu.list", "system.*"])).expect("allowed").is_empty());
        assert_eq!(edit.text(), "[packs.flow]\ncall = [\"gpu.list\", \"system.*\"]\n");
        assert!(edit.deny(&pack, Power::Call, &words(&["gpu.list"])).expect("denied"));
        edit.save().expect("still good");
        assert_eq!(edit.text(), "[packs.flow]\ncall = [\"system.*\"]\n");
        let notes = edit.allow(&pack, None, Power::Call, &words(&["*"])).expect("allowed");
        assert!(notes[0].starts_with("warning: `*` is every command"), "{notes:?}");
    }

    #[test]
    fn what_is_no_packs_command_is_refused() {
        let (_dir, mut edit) = edit("");
        let mut say = |commands: &[&str]| edit.allow(&name("flow"), None, Power::Call, &words(commands)).expect_err("refused").message;
        assert_eq!(say(&[]), "`call` is granted command by command: name at least one");
        assert_eq!(say(&["pack.install"]), "`pack.install` is the agent's own, for operators only");
        assert_eq!(say(&["node.*"]), "`node.*` is the agent's own, for operators only");
        assert_eq!(say(&["gpu"]), "`gpu` is not a command pattern: `*`, `interface.*` or `interface.function`");
    }
}
